package clustertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Story runs a text, one step a line, on the cluster; the first step that fails
// ends it. # begins a comment. "! STEP" must fail, "! STEP -- TEXT" with TEXT in
// the error. "within DURATION STEP" must not take longer, in the bubble's time.
// Nodes are named by id or by a name given with let.
//
//	form A B C ...           start A, let B, C, ... join and become voters
//	up A / join A            start a node: it goes on or begins a cluster / waits to be taken in
//	kill A / stop A          kill -9 / an orderly end
//	wipe A                   an empty disk for a node that is down
//	stall A                  A's disk hangs at the next write
//	let NAME leader          NAME is whoever leads now
//	let F G followers        F and G are the other nodes that run
//	isolate A                nothing to or from A; deaf A: nothing to A
//	partition A B            nothing between the two; oneway A B: nothing from A to B
//	heal [A]                 everything, or A's links
//	delay DURATION           of a message, one way
//	sleep DURATION
//	propose A [N]            N commands through A, each acknowledged
//	begin A / end            propose through A all the time, until end; unknown outcomes are repeated
//	revoke A KEY             create a key and revoke it through A
//	add/promote/demote/remove/transfer A    on the leader; transfer to whom raft picks, A is the old one
//	save A FILE / restore A FILE / damage FILE
//	recover A B ...          B ... are the voters that are left; run on A's disk
//	mark                     remember terms and leader for "same"
//	expect leader [A | same | not A]     within 20 s
//	expect no leader A       A does not lead and knows nobody who does
//	expect same term         nobody's term has grown since mark
//	expect down A            A has stopped itself
//	expect voters A B ...    on every node that runs
//	expect revoked A KEY / expect key A KEY active
//	expect equal             all nodes that run have the same state
//	expect tolerance A N     as A, the leader, reports it
func (c *Cluster) Story(ctx context.Context, text string, logf func(string, ...any)) error {
	s := &story{Cluster: c, ctx: ctx, logf: logf, names: map[string]string{}, ledger: newLedger(), files: map[string][]byte{}}
	defer s.endLoad()
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		began := time.Now()
		if err := s.step(line); err != nil {
			return fmt.Errorf("line %d: %s: %w", i+1, strings.TrimSpace(line), err)
		}
		logf("%8s  %s", time.Since(began).Round(time.Millisecond), strings.TrimSpace(line))
	}
	s.endLoad()
	return s.conclude()
}

type story struct {
	*Cluster
	ctx    context.Context
	logf   func(string, ...any)
	names  map[string]string
	ledger *ledger
	files  map[string][]byte
	marked struct {
		leader string
		terms  map[string]uint64
	}
	stopLoad func()
}

func (s *story) step(line string) (failed error) {
	line, text, _ := strings.Cut(line, " -- ")
	words := strings.Fields(line)
	if words[0] == "within" && len(words) > 2 {
		limit, err := time.ParseDuration(words[1])
		if err != nil {
			return err
		}
		defer func(began time.Time) {
			if took := time.Since(began); failed == nil && took > limit {
				failed = fmt.Errorf("it took %s", took)
			}
		}(time.Now())
		words = words[2:]
	}
	mustFail := words[0] == "!"
	if mustFail {
		words = words[1:]
	}
	err := s.do(words[0], words[1:])
	switch {
	case mustFail && err == nil:
		return fmt.Errorf("it succeeded")
	case mustFail && !strings.Contains(err.Error(), strings.TrimSpace(text)):
		return fmt.Errorf("it failed otherwise: %w", err)
	case mustFail:
		return nil
	}
	return err
}

// do runs a verb with its arguments, names replaced by ids.
func (s *story) do(verb string, args []string) error {
	if verb == "let" {
		return s.let(args)
	}
	args = slices.Clone(args)
	for i, a := range args {
		if id, ok := s.names[a]; ok {
			args[i] = id
		}
	}
	verbs := s.verbs()
	fn, ok := verbs[verb]
	if !ok {
		return fmt.Errorf("no such verb; there are %s", slices.Sorted(maps.Keys(verbs)))
	}
	if len(args) < fn.min {
		return fmt.Errorf("want at least %d arguments", fn.min)
	}
	return fn.run(args)
}

type verb struct {
	min int // arguments
	run func(args []string) error
}

func (s *story) verbs() map[string]verb {
	all := map[string]verb{
		"form":    {1, s.form},
		"up":      {1, func(a []string) error { return s.Start(a[0], false) }},
		"join":    {1, func(a []string) error { return s.Start(a[0], true) }},
		"kill":    {1, func(a []string) error { return s.Kill(a[0]) }},
		"stop":    {1, func(a []string) error { return s.Stop(a[0]) }},
		"wipe":    {1, func(a []string) error { return s.Wipe(a[0]) }},
		"stall":   {1, func(a []string) error { return s.Stall(a[0]) }},
		"sleep":   {1, s.sleep},
		"delay":   {1, s.delay},
		"mark":    {0, s.mark},
		"expect":  {1, s.expect},
		"propose": {1, s.propose},
		"begin":   {1, s.beginLoad},
		"end":     {0, func([]string) error { s.endLoad(); return nil }},
		"revoke":  {2, s.revoke},
	}
	maps.Copy(all, s.networkVerbs())
	maps.Copy(all, s.memberVerbs())
	return all
}

func (s *story) networkVerbs() map[string]verb {
	each := func(id string, cut func(other string)) {
		for _, other := range s.IDs() {
			if other != id {
				cut(other)
			}
		}
	}
	return map[string]verb{
		"isolate": {1, func(a []string) error {
			each(a[0], func(o string) { s.Net.Cut(a[0], o); s.Net.Cut(o, a[0]) })
			return nil
		}},
		"deaf": {1, func(a []string) error { each(a[0], func(o string) { s.Net.Cut(o, a[0]) }); return nil }},
		"partition": {2, func(a []string) error {
			s.Net.Cut(a[0], a[1])
			s.Net.Cut(a[1], a[0])
			return nil
		}},
		"oneway": {2, func(a []string) error { s.Net.Cut(a[0], a[1]); return nil }},
		"heal": {0, func(a []string) error {
			if len(a) > 0 {
				s.Net.HealNode(a[0])
				return nil
			}
			s.Net.Heal()
			return nil
		}},
	}
}

// let names nodes by their role.
func (s *story) let(args []string) error {
	leader := s.Leader()
	if leader == "" || len(args) < 2 {
		return fmt.Errorf("leader %q", leader)
	}
	names, role := args[:len(args)-1], args[len(args)-1]
	ids := []string{leader}
	if role == "followers" {
		ids = slices.DeleteFunc(s.Up(), func(id string) bool { return id == leader })
	}
	if len(names) > len(ids) {
		return fmt.Errorf("only %v", ids)
	}
	for i, name := range names {
		s.names[name] = ids[i]
	}
	return nil
}

func (s *story) sleep(a []string) error {
	d, err := time.ParseDuration(a[0])
	if err == nil {
		time.Sleep(d)
	}
	return err
}

func (s *story) delay(a []string) error {
	d, err := time.ParseDuration(a[0])
	if err == nil {
		s.Net.SetDelay(d)
	}
	return err
}

func (s *story) mark([]string) error {
	s.marked.leader, s.marked.terms = s.Leader(), map[string]uint64{}
	for _, id := range s.Up() {
		s.marked.terms[id] = s.Node(id).Status().Term
	}
	return nil
}
