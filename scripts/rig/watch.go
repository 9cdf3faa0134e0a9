package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

// watch is a generator at a steady rate that does not wait for answers, whose
// every request is noted with its times.
type watch struct {
	cmd  *exec.Cmd
	file string
}

// watchRate is the requests a second of a watch.
const watchRate = "50"

// startWatch watches a tenant through a node until stopped.
func (b *bench) startWatch(via *seat, key string) (*watch, error) {
	f, err := os.CreateTemp(b.dir, "watch-")
	if err != nil {
		return nil, err
	}
	f.Close()
	cmd, err := b.background(b.at.client, "-url", via.url(), "-key", key, "-rate", watchRate, "-d", "5m", "-timeout", "20s", "-max-tokens", "256", "-out", f.Name())
	return &watch{cmd: cmd, file: f.Name()}, err
}

// stop may be called again.
func (w *watch) stop() {
	w.cmd.Process.Kill()
	w.cmd.Wait()
}

// seen is one request of a watch. Times are of the intended start.
type seen struct {
	ok   bool
	err  string // what went wrong
	at   time.Time
	took time.Duration
}

func (s seen) end() time.Time { return s.at.Add(s.took) }

// read answers what is noted so far, in the order of the answers.
func (w *watch) read() (out []seen, err error) {
	raw, err := os.ReadFile(w.file)
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(raw) {
		var l struct {
			Complete bool   `json:"complete"`
			Status   int    `json:"status"`
			Error    string `json:"error"`
			At       int64  `json:"at_us"`
			Took     int64  `json:"took_us"`
		}
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, fmt.Errorf("note of a request %q: %w", line, err)
		}
		out = append(out, seen{ok: l.Complete && l.Status == 200, err: l.Error, at: time.UnixMicro(l.At), took: time.Duration(l.Took) * time.Microsecond})
	}
	return out, nil
}

// await waits for the first whole answer to a request that was sent after a
// moment, and says how long after it the answer came.
func (w *watch) await(since time.Time) (time.Duration, error) {
	for {
		all, err := w.read()
		if err != nil {
			return 0, err
		}
		for _, s := range all {
			if s.ok && s.at.After(since) {
				return s.end().Sub(since), nil
			}
		}
		if time.Since(since) > fleetPatience {
			return 0, fmt.Errorf("the tenant is not served after %s: %v", fleetPatience, between(all, since, time.Now()).failed)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// spell is what a watch saw in a span of time.
type spell struct {
	waits  []time.Duration // sorted, of those answered whole
	failed troubles
}

// troubles counts requests by what went wrong.
type troubles map[string]int

func (t troubles) sum() (n int) {
	for _, c := range t {
		n += c
	}
	return n
}

func (t *troubles) add(more troubles) {
	if *t == nil {
		*t = troubles{}
	}
	for what, c := range more {
		(*t)[what] += c
	}
}

// between sums up the requests that were under way after from and sent before to.
func between(all []seen, from, to time.Time) spell {
	sp := spell{failed: troubles{}}
	for _, s := range all {
		switch {
		case !s.end().After(from) || !s.at.Before(to):
		case s.ok:
			sp.waits = append(sp.waits, s.took)
		default:
			sp.failed[s.err]++
		}
	}
	slices.Sort(sp.waits)
	return sp
}
