package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bulkhead-ai/bulkhead/scripts/rig/disk"
)

// fault is one way to hurt a member. It returns when the cause is gone; that the
// cluster is whole again is for settle to see.
type fault struct {
	name  string
	hurt  func(m *member) error
	needs func() string // why it cannot be had; nil = it can
}

func (f fault) missing() string {
	if f.needs == nil {
		return ""
	}
	return f.needs()
}

func (c *campaign) faults() []fault {
	return []fault{
		{name: "kill", hurt: c.killNode},
		{name: "kill-supervisor", hurt: c.killSupervisor},
		{name: "freeze", hurt: c.freezeNode},
		{name: "restart", hurt: c.restart},
		{name: "clock", hurt: c.clock},
		{name: "cut-off", hurt: func(m *member) error { return c.lasting(1, 15, c.net.Partition(m.host, c.others(m)...)) }},
		{name: "partition", hurt: func(m *member) error { return c.lasting(1, 15, c.net.Partition(m.host, c.anyOther(m))) }},
		{name: "deaf", hurt: func(m *member) error { return c.lasting(1, 15, c.net.Deafen(m.host, c.others(m)...)) }},
		{name: "half-deaf", hurt: func(m *member) error { return c.lasting(1, 15, c.net.Deafen(m.host, c.anyOther(m))) }},
		{name: "isolate", hurt: func(m *member) error { return c.lasting(1, 15, c.net.Isolate(m.host)) }},
		{name: "unplug", hurt: func(m *member) error { return c.lasting(1, 15, c.net.Unplug(m.host)) }},
		{name: "reset", hurt: c.resets},
		{name: "power-cut", hurt: c.powerCut},
		{name: "full-disk", hurt: c.fullDisk},
		{name: "slow-disk", hurt: c.slowDisk, needs: disk.CanSlow},
		{name: "failing-disk", hurt: c.failingDisk},
		{name: "bit-flip", hurt: c.bitFlip},
		{name: "wipe", hurt: c.wipe},
		{name: "old-disk", hurt: c.oldDisk},
		{name: "transfer", hurt: c.transfer},
		{name: "drain", hurt: c.drain},
		{name: "upgrade", hurt: c.upgrade, needs: c.lacksBuild},
	}
}

func (c *campaign) faultNames() (names []string) {
	for _, f := range c.faults() {
		names = append(names, f.name)
	}
	return names
}

func (c *campaign) faultNamed(name string) (fault, bool) {
	i := slices.Index(c.faultNames(), name)
	if i < 0 {
		return fault{}, false
	}
	return c.faults()[i], true
}

// hurt does one fault after the other, each on a random member, and lets the
// cluster become whole in between: two at once may cost the majority, which is no
// failure of the cluster.
func (c *campaign) hurt(faults int) error {
	var pool []fault
	for _, f := range c.faults() {
		if f.missing() == "" && (len(c.only) == 0 || c.only[f.name]) {
			pool = append(pool, f)
		}
	}
	if len(pool) == 0 {
		return errors.New("none of the faults can be had here")
	}
	for i := range faults {
		if !c.last.IsZero() && time.Now().After(c.last) {
			fmt.Printf("cluster: the time is up after %d faults\n", i)
			break
		}
		f := pool[c.rng.IntN(len(pool))]
		if i < len(pool) && faults >= len(pool) {
			f = pool[i] // each at least once
		}
		m := c.members[c.rng.IntN(len(c.members))]
		fmt.Printf("cluster: %s fault %d of %d: %s on %s\n", time.Now().Format(time.TimeOnly), i+1, faults, f.name, m.id)
		from := time.Now()
		c.traffic.avoid.Store(&m.addr)
		err := errors.Join(f.hurt(m), c.net.Heal())
		if err != nil {
			return fmt.Errorf("fault %d, %s on %s: %w\n%s", i+1, f.name, m.id, err, m.tail())
		}
		if err := c.settle(); err != nil {
			return fmt.Errorf("after fault %d, %s on %s, the cluster does not become whole: %w\n%s", i+1, f.name, m.id, err, m.tail())
		}
		c.traffic.avoid.Store(nil)
		c.pause(1, 3)
		c.hits[f.name]++
		gap, tenant := c.traffic.longestOutage(from, time.Now())
		c.outages[f.name] = append(c.outages[f.name], gap)
		if gap > outageBound {
			return fmt.Errorf("fault %d, %s on %s: tenant %s was not served for %s", i+1, f.name, m.id, tenant, gap)
		}
	}
	return nil
}

// outageBound is far above what an outage takes: it is about tenants that never
// come back.
const outageBound = 90 * time.Second

// pause waits a random time between two numbers of seconds.
func (c *campaign) pause(least, most int) {
	time.Sleep(time.Duration(1000*least+c.rng.IntN(1000*(most-least)+1)) * time.Millisecond)
}

// lasting lets a fault of the network last a while, if it could be made.
func (c *campaign) lasting(least, most int, err error) error {
	if err == nil {
		c.pause(least, most)
	}
	return err
}

func (c *campaign) others(m *member) (out []string) {
	for _, o := range c.members {
		if o != m {
			out = append(out, o.host)
		}
	}
	return out
}

func (c *campaign) anyOther(m *member) string {
	all := c.others(m)
	return all[c.rng.IntN(len(all))]
}

func (c *campaign) killNode(m *member) error {
	if err := m.kill(); err != nil {
		return err
	}
	c.pause(0, 12)
	return m.start()
}

// killSupervisor leaves it to the system that nothing of the node outlives it.
func (c *campaign) killSupervisor(m *member) error {
	m.cmd.Process.Kill()
	<-m.ended
	c.pause(0, 12)
	return m.start()
}

// freezeNode stops everything of a node, as a virtual machine that is not
// scheduled, and lets it go on as if nothing had happened.
func (c *campaign) freezeNode(m *member) error {
	stopped, err := freeze(m.cmd.Process.Pid)
	c.pause(1, 20)
	for _, pid := range stopped {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	return err
}

func (c *campaign) restart(m *member) error {
	m.stop()
	c.pause(0, 5)
	return m.start()
}

// clock starts the node with clocks that say another time since boot.
func (c *campaign) clock(m *member) error {
	m.stop()
	m.ahead = time.Duration(c.rng.IntN(1000)) * time.Hour
	return m.start()
}

// resets breaks the connections between a node and the others again and again.
func (c *campaign) resets(m *member) error {
	for range 3 + c.rng.IntN(5) {
		if err := c.net.Reset(m.host, c.others(m)...); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
		if err := c.net.Heal(); err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond)
	}
	return nil
}

func (c *campaign) powerCut(m *member) error {
	if _, err := freeze(m.cmd.Process.Pid); err != nil {
		return err
	}
	cut := filepath.Join(c.b.dir, m.host+".cut")
	if err := errors.Join(m.disk.Cut(cut), m.kill()); err != nil {
		return err
	}
	if err := m.disk.Put(cut, false); err != nil {
		return err
	}
	c.pause(0, 8)
	return m.start()
}

// fullDisk lasts until the node's tenants are served where there is room.
func (c *campaign) fullDisk(m *member) error {
	if err := m.disk.Fill(); err != nil {
		return err
	}
	err := within(leavePatience, func() error {
		v, err := c.status()
		if err != nil {
			return err
		}
		for _, n := range v.Nodes {
			if n.ID == m.id && n.Tenants > 0 {
				return fmt.Errorf("%d tenants stay on the full disk of %s", n.Tenants, m.id)
			}
		}
		return nil
	})
	c.pause(2, 15)
	return errors.Join(err, m.disk.Free())
}

// leavePatience bounds how long tenants may take to leave a full disk; it is
// about hanging, not speed.
const leavePatience = 2 * time.Minute

func (c *campaign) slowDisk(m *member) error {
	if err := m.disk.Slow(1 + c.rng.IntN(20)); err != nil {
		return err
	}
	c.pause(2, 15)
	return m.disk.Slow(0)
}

func (c *campaign) failingDisk(m *member) error {
	if err := m.disk.Fail(); err != nil {
		return err
	}
	c.pause(1, 10)
	if err := m.kill(); err != nil {
		return err
	}
	if err := m.disk.Remount(); err != nil {
		return err
	}
	return m.start()
}

// bitFlip damages what is only a replica: the node is away for long enough that
// all its tenants are elsewhere. It is over when the damage was found and mended:
// until then another loss would be a second one.
func (c *campaign) bitFlip(m *member) error {
	if err := m.kill(); err != nil {
		return err
	}
	c.pause(8, 12)
	where, err := m.disk.Flip(c.rng, func(path string) bool {
		return strings.HasPrefix(path, "data/tenants/") && strings.Contains(path, "/journal/")
	})
	if err != nil {
		return err
	}
	fmt.Println("cluster: flipped a bit:", where)
	if err := m.start(); err != nil {
		return err
	}
	return within(settlePatience, func() error {
		mended, err := where.Mended()
		if err == nil && !mended {
			err = fmt.Errorf("the flipped bit is not mended: %s", where)
		}
		return err
	})
}

// wipe replaces a node by an empty machine.
func (c *campaign) wipe(m *member) error {
	if err := m.kill(); err != nil {
		return err
	}
	if err := m.disk.Wipe(); err != nil {
		return err
	}
	return c.replace(m)
}

// replace removes a member that is gone and lets its host, empty, join as another.
func (c *campaign) replace(m *member) error {
	os.Remove(m.backup)
	m.backup, m.ahead = "", 0
	old := m.id
	if err := c.order("cluster", "remove", old, "--reason", "its disk is gone"); err != nil {
		return err
	}
	if err := c.name(m); err != nil {
		return err
	}
	return c.bring(m)
}

// oldDisk takes a copy of a node's disk and, when it is there already, puts it in
// as an operator does who restores yesterday's image. The node must refuse it,
// say so, and be of no harm; then it is replaced.
func (c *campaign) oldDisk(m *member) error {
	if m.backup == "" {
		return c.backUp(m)
	}
	if err := m.kill(); err != nil {
		return err
	}
	if err := m.disk.Put(m.backup, true); err != nil {
		return err
	}
	mark, err := os.Stat(m.log)
	if err != nil {
		return err
	}
	if err := m.start(); err != nil {
		return err
	}
	select {
	case <-m.ended:
	case <-time.After(startTimeout):
		return errors.New("a node on yesterday's disk goes on")
	}
	b, err := os.ReadFile(m.log)
	if err != nil {
		return err
	}
	if said := string(b[mark.Size():]); !strings.Contains(said, "disk_rolled_back") && !strings.Contains(said, "rolled back") {
		return fmt.Errorf("a node on yesterday's disk ended and did not say why: %s", said)
	}
	m.wanted = false
	if err := m.disk.Wipe(); err != nil {
		return err
	}
	return c.replace(m)
}

func (c *campaign) backUp(m *member) error {
	stopped, err := freeze(m.cmd.Process.Pid)
	backup := filepath.Join(c.b.dir, m.host+".backup")
	if err == nil {
		err = m.disk.Cut(backup)
	}
	for _, pid := range stopped {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	m.backup = backup
	if err != nil {
		return err
	}
	// The image must be of another day: what the node is known to hold is noted every
	// five seconds.
	c.pause(8, 10)
	return c.oldDisk(m)
}

// order gives the cluster an order, again while it says that it cannot take any
// now: a leader that is new may know of no live voter yet.
func (c *campaign) order(args ...string) error {
	return within(time.Minute, func() error {
		_, err := c.cli("", args...)
		return err
	})
}

func (c *campaign) transfer(*member) error { return c.order("cluster", "transfer") }

func (c *campaign) drain(m *member) error {
	return c.drained(m, func() error { c.pause(1, 3); return nil })
}

// drained does something with a node that serves nobody meanwhile.
func (c *campaign) drained(m *member, do func() error) error {
	if err := c.order("cluster", "drain", m.id, "--wait", "--timeout", "2m"); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return c.order("cluster", "drain", m.id, "--off")
}

// upgrade takes a node to the other build as an operator does, or back, so that
// the builds are mixed most of the time.
func (c *campaign) upgrade(m *member) error {
	return c.drained(m, func() error {
		m.stop()
		if from := filepath.Dir(m.program); from == c.other {
			m.program = filepath.Join(c.b.bin, "bulkhead")
		} else {
			m.program = filepath.Join(c.other, "bulkhead")
		}
		return m.start()
	})
}

func (c *campaign) lacksBuild() string {
	if c.other == "" {
		return "no other build was given (-other)"
	}
	return ""
}
