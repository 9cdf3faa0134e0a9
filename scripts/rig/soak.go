package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// soakTenants: one never sleeps, the others hibernate after soakIdle and are
// woken again, so that starts and ends are soaked as well.
const (
	soakTenants = 8
	soakIdle    = time.Second
	soakSamples = 60
)

// fdSlack is how many more descriptors than before a node without load may hold.
const fdSlack = 32

// sample is what the processes hold at one moment.
type sample struct {
	at                       time.Duration
	supervisor, worker       int64 // KiB; worker: of the one that never sleeps
	supervisorFDs, workerFDs int
	workers                  int
}

// runSoak loads a node for d and prints how fast memory and descriptors grow.
// Errors of clients, and descriptors that do not come back, are an error; sizes
// are for the reader.
func runSoak(bin string, d time.Duration) error {
	b, err := newBench(bin, "soak")
	if err != nil {
		return err
	}
	defer b.close()
	if b.mockURL, _, err = b.startPeer(spot{}, "mock"); err != nil {
		return err
	}
	n, err := newNode(bin, filepath.Join(b.dir, "data"))
	if err != nil {
		return err
	}
	if err := n.start(); err != nil {
		return err
	}
	defer func() { n.stop() }()
	keys, err := n.soakKeys(b.mockURL + "/v1")
	if err != nil {
		return err
	}
	if err := b.wave(n, keys, time.Second); err != nil { // first use of everything
		return err
	}
	time.Sleep(2 * soakIdle)
	before := fds(n.cmd.Process.Pid)
	samples, err := b.soak(n, keys, d)
	if err != nil {
		return err
	}
	printSoak(samples)
	return n.settledFDs(before)
}

func (n *node) soakKeys(mock string) ([]string, error) {
	var keys []string
	for i := range soakTenants {
		name, idle := fmt.Sprintf("soak-%d", i), soakIdle.String()
		if i == 0 {
			idle = "0"
		}
		if _, err := n.cli(document(name, mock, "{}", idle), "apply", "-f", "-"); err != nil {
			return nil, err
		}
		key, err := n.key(name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// soak runs waves of load with pauses in which workers fall asleep.
func (b *bench) soak(n *node, keys []string, d time.Duration) ([]sample, error) {
	start := time.Now()
	end, ended := make(chan struct{}), make(chan struct{})
	var samples []sample
	go func() {
		defer close(ended)
		tick := time.NewTicker(max(d/soakSamples, 100*time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				samples = append(samples, n.sample(time.Since(start)))
			}
		}
	}()
	var err error
	for time.Since(start) < d && err == nil {
		if err = b.wave(n, keys, 2*time.Second); err == nil {
			time.Sleep(3 * soakIdle / 2)
		}
	}
	close(end)
	<-ended
	return samples, err
}

// wave loads all tenants at once, plain and streamed, some hanging up.
func (b *bench) wave(n *node, keys []string, d time.Duration) error {
	failures := make(chan error, len(keys))
	for _, key := range keys {
		go func() {
			r, err := b.load(spot{}, "-url", n.url(), "-key", key, "-c", "4", "-d", d.String(), "-mix", "-cancel", "0.1", "-max-tokens", "256", "-mock", "l=2 c=20 d=1")
			if err == nil && len(r.Errors) > 0 {
				err = fmt.Errorf("errors at a client: %v", r.Errors)
			}
			failures <- err
		}()
	}
	var all []error
	for range keys {
		all = append(all, <-failures)
	}
	return errors.Join(all...)
}

func (n *node) sample(at time.Duration) sample {
	s := sample{at: at}
	_, stats, err := processes()
	if err != nil {
		return s
	}
	pid := n.cmd.Process.Pid
	s.supervisor, s.supervisorFDs = stats[pid].rss, fds(pid)
	s.workers = len(n.find(workerTitle))
	for _, w := range n.find(workerTitle + "soak-0") {
		s.worker, s.workerFDs = stats[w].rss, fds(w)
	}
	return s
}

func fds(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}

// settledFDs waits until the node holds no more descriptors than before.
func (n *node) settledFDs(before int) error {
	now := 0
	for range 100 {
		if now = fds(n.cmd.Process.Pid); now <= before+fdSlack {
			fmt.Printf("soak: supervisor's descriptors without load: %d before, %d after\n", before, now)
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the supervisor holds %d descriptors without load, %d before", now, before)
}

func printSoak(samples []sample) {
	if len(samples) < 4 {
		fmt.Println("soak: too short for slopes")
		return
	}
	// The first quarter fills caches and heaps; what is asked is what goes on.
	settled := samples[len(samples)/4:]
	last := settled[len(settled)-1]
	fmt.Printf("soak: %d samples over %s, slopes over the last three quarters\n", len(samples), last.at.Round(time.Second))
	for _, row := range []struct {
		name string
		of   func(sample) float64
	}{
		{"supervisor KiB", func(s sample) float64 { return float64(s.supervisor) }},
		{"supervisor descriptors", func(s sample) float64 { return float64(s.supervisorFDs) }},
		{"worker KiB", func(s sample) float64 { return float64(s.worker) }},
		{"worker descriptors", func(s sample) float64 { return float64(s.workerFDs) }},
		{"live workers", func(s sample) float64 { return float64(s.workers) }},
	} {
		lo, hi := row.of(settled[0]), row.of(settled[0])
		for _, s := range settled {
			lo, hi = min(lo, row.of(s)), max(hi, row.of(s))
		}
		fmt.Printf("  %-24s %10.0f to %10.0f, slope %+12.1f an hour\n", row.name, lo, hi, slope(settled, row.of))
	}
}

// slope is the least-squares slope of a figure, per hour.
func slope(samples []sample, of func(sample) float64) float64 {
	var n, x, y, xx, xy float64
	for _, s := range samples {
		h, v := s.at.Hours(), of(s)
		n, x, y, xx, xy = n+1, x+h, y+v, xx+h*h, xy+h*v
	}
	if d := n*xx - x*x; d != 0 {
		return (n*xy - x*y) / d
	}
	return 0
}
