package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// fleetTenants are those of the bench's cluster that stay on one node.
var fleetTenants = []struct{ name, tier string }{
	{"plain-a", "standard"}, {"plain-b", "standard"}, {"firm-a", "dedicated"}, {"firm-b", "dedicated"},
}

// cluster prints what three nodes cost and give beside the node alone. With
// check, an error of a neighbour is one.
func (b *bench) cluster(alone *node, check bool) error {
	fmt.Println("\nthree nodes on loopback, all on the gateway's core; figures of reference are those of the design's prototypes,")
	fmt.Println("whose processes had two cores for everything")
	f, err := b.newFleet(filepath.Join(b.dir, "cluster"))
	defer f.close()
	if err != nil {
		return fmt.Errorf("set up a cluster: %w", err)
	}
	if err := f.tenant(b, roaming, "standard", nil); err != nil {
		return err
	}
	if _, err := f.live().cli(prices, "apply", "-f", "-"); err != nil {
		return err
	}
	if err := f.planned(b); err != nil {
		return err
	}
	lost, err := f.failovers(b)
	if err != nil {
		return err
	}
	owner := f.nodes[0]
	for _, t := range fleetTenants {
		if err := f.tenant(b, t.name, t.tier, owner); err != nil {
			return err
		}
	}
	if err := f.hop(b, owner); err != nil {
		return err
	}
	failed, err := f.quorum(b, owner, alone)
	if err != nil {
		return err
	}
	if check && lost+failed > 0 {
		return fmt.Errorf("neighbours of lost nodes had %d errors, the victim of a flood %d", lost, failed)
	}
	return nil
}

// lane is one way of serving the same load.
type lane struct {
	name, url, key, pids string
	got                  []result
}

// race sends the load through the lanes in turn, so that all see the same
// machine.
func (b *bench) race(lanes []*lane, conns string) error {
	common := []string{"-c", conns, "-d", b.seconds(6*time.Second, time.Second), "-drain", b.seconds(1500*time.Millisecond, 300*time.Millisecond), "-max-tokens", "256"}
	for _, l := range lanes {
		if _, err := b.load(b.at.client, append([]string{"-url", l.url, "-key", l.key}, append(slices.Clone(common), "-d", b.seconds(2*time.Second, 300*time.Millisecond))...)...); err != nil {
			return err
		}
	}
	for range b.rounds(3, 1) {
		for _, l := range lanes {
			r, err := b.load(b.at.client, append([]string{"-url", l.url, "-key", l.key, "-pid", l.pids}, common...)...)
			if err != nil {
				return err
			}
			if len(r.Errors) > 0 {
				return fmt.Errorf("%s: errors: %v", l.name, r.Errors)
			}
			l.got = append(l.got, r)
		}
	}
	return nil
}

// printRace prints the lanes, each with its ratios to the first.
func printRace(lanes []*lane, conns string) {
	rate, p50 := func(r result) float64 { return r.PerSecond }, func(r result) float64 { return r.P50 }
	p99, cpu := func(r result) float64 { return r.P99 }, func(r result) float64 { return r.CPU }
	first := lanes[0].got
	for _, l := range lanes {
		fmt.Printf("%-34s %6s %8.0f %8.2f %8.2f %8.0f | %7.2f %7.2f %7.2f %7.2f\n", l.name, conns,
			median(l.got, rate), median(l.got, p50), median(l.got, p99), median(l.got, cpu),
			median(l.got, rate)/median(first, rate), median(l.got, p50)/median(first, p50), median(l.got, p99)/median(first, p99), median(l.got, cpu)/median(first, cpu))
	}
}

const raceHead = "%-34s %6s %8s %8s %8s %8s | %7s %7s %7s %7s\n"

func printRaceHead(what string) {
	fmt.Printf(raceHead, what, "conns", "req/s", "p50 ms", "p99 ms", "CPU us", "req/s", "p50", "p99", "CPU")
}

// hop prints what it costs to ask a node that is not the owner.
func (f *fleet) hop(b *bench, owner *seat) error {
	fmt.Println("\nthe extra hop: 1 KiB in and out, CPU of all processes of all nodes per request; ratios to the first")
	printRaceHead("asked")
	for _, conns := range []string{"1", "32"} {
		lanes := []*lane{
			{name: "the owner", url: owner.url(), key: f.keys["plain-a"], pids: f.pids()},
			{name: "another node", url: f.others(owner)[0].url(), key: f.keys["plain-a"], pids: f.pids()},
		}
		if err := b.race(lanes, conns); err != nil {
			return fmt.Errorf("hop: %w", err)
		}
		printRace(lanes, conns)
	}
	fmt.Println("reference (no keys, limits or log; the tunnel alone): p50 ratio 1.6-1.8 with 1 connection; 0.65-0.75 of the requests/s with 32")
	return nil
}

// quorum prints what three copies of the log cost beside the node alone, and
// what a flood on one tenant does to another. It answers the victim's errors.
func (f *fleet) quorum(b *bench, owner *seat, alone *node) (failed int, err error) {
	keys := map[string]string{}
	for _, name := range []string{"solo-a", "solo-b"} {
		if keys[name], err = alone.tenant(name, b.mockURL+"/v1", everything); err != nil {
			return 0, err
		}
	}
	if _, err := alone.cli(prices, "apply", "-f", "-"); err != nil {
		return 0, err
	}
	fmt.Println("\nthree copies of a tenant's log: closed load, all limits on; ratios to the node alone")
	printRaceHead("log")
	for _, conns := range []string{"1", "32"} {
		lanes := []*lane{
			{name: "one copy, a node alone", url: alone.url(), key: keys["solo-a"], pids: strconv.Itoa(alone.cmd.Process.Pid)},
			{name: "three copies, standard", url: owner.url(), key: f.keys["plain-a"], pids: f.pids()},
			{name: "three copies, dedicated", url: owner.url(), key: f.keys["firm-a"], pids: f.pids()},
		}
		if err := b.race(lanes, conns); err != nil {
			return 0, fmt.Errorf("quorum: %w", err)
		}
		printRace(lanes, conns)
	}
	fmt.Println("reference, one append of 1 KiB and less: 0.51-0.55 ms p50, 2.1-3.5 ms p99 with quorum, 0.2-0.4 ms for the disk alone")
	fmt.Println("\na victim at 20 requests/s while another tenant of its node floods on 64 connections; ms, ratio of p99 to alone")
	fmt.Printf("%-34s %8s %8s %8s %8s %7s %9s\n", "log", "p50", "p99", "p50 fl.", "p99 fl.", "ratio", "failed")
	for _, v := range []struct{ name, url, flood, victim string }{
		{"one copy, a node alone", alone.url(), keys["solo-a"], keys["solo-b"]},
		{"three copies, standard", owner.url(), f.keys["plain-a"], f.keys["plain-b"]},
		{"three copies, dedicated", owner.url(), f.keys["firm-a"], f.keys["firm-b"]},
	} {
		if b.short && v.flood == f.keys["plain-a"] {
			continue
		}
		n, err := b.flooded(v.name, v.url, v.flood, v.victim)
		if err != nil {
			return failed, err
		}
		failed += n
	}
	return failed, nil
}

// flooded measures a victim alone and beside a flood.
func (b *bench) flooded(name, url, flood, victim string) (failed int, err error) {
	steady := []string{"-url", url, "-key", victim, "-rate", "20", "-d", b.seconds(8*time.Second, 1500*time.Millisecond), "-timeout", "20s", "-max-tokens", "256"}
	if _, err := b.load(b.at.client, append(steady, "-d", "500ms")...); err != nil {
		return 0, err
	}
	calm, err := b.load(b.at.client, steady...)
	if err != nil {
		return 0, err
	}
	attacker, err := b.background(b.at.attacker, "-url", url, "-key", flood, "-c", "64", "-d", "5m", "-timeout", "1m", "-max-tokens", "256")
	if err != nil {
		return 0, err
	}
	time.Sleep(500 * time.Millisecond)
	stormy, err := b.load(b.at.client, steady...)
	err = errors.Join(err, attacker.Process.Kill())
	attacker.Wait()
	for _, n := range stormy.Errors {
		failed += n
	}
	fmt.Printf("%-34s %8.2f %8.2f %8.2f %8.2f %7.2f %9s\n", name, calm.P50, calm.P99, stormy.P50, stormy.P99, stormy.P99/calm.P99, fmt.Sprintf("%d/%d", failed, stormy.OK+failed))
	return failed, err
}
