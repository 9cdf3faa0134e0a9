// Command rig is the project's test bench: a mock provider that keeps its own
// books, a bare reverse proxy as the reference that figures are compared with, a
// load generator, and the campaigns built of them. It sends to loopback
// addresses only, and every loop is bounded in count or time.
//
// What it proves, it proves from outside: it runs the built programs and reads
// the command line's answers, the upstream's own record, what clients received
// and /proc. Correctness is checked and ends in the exit status; times never
// are, they are only printed, each next to the reference's of the same run.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/bulkhead-ai/bulkhead/scripts/rig/hosts"
)

const usage = `usage: rig bench -bin bin [-short] [-check]           cost, isolation, cluster, cold starts, memory, look-up
       rig noisy -bin bin [-short] [-check]           only the noisy neighbours
       rig fleet -bin bin [-short] [-check]           only the cluster of three nodes
       rig exact -bin bin [-n 1000]                   limits under a storm of parallel requests
       rig chaos -bin bin [-kills 1000] [-seed N]     random kills, then the books
       rig chaos -bin bin -powercut 20 [-seed N]      power cuts on a loop device, then the books (root)
       rig cluster -bin bin [-faults 40] [-for D] [-seed N] [-only FAULT,...] [-other bin]   three hosts under faults, then the books (root)
       rig mutants -bin bin [-src .] [-only NAME]     four broken builds, each of which its campaign must see (root)
       rig soak  -bin bin [-d 1h]                     slopes of memory and descriptors
       rig mock  -addr 127.0.0.1:9001 [-journal FILE]
       rig proxy -addr 127.0.0.1:9002 -to http://127.0.0.1:9001
       rig load  -url URL -key KEY [-c 64 -d 5s | -rate 20 -d 5s | -n 1000 -burst] [-stream] [-mock "l=50 c=100"] ...
       rig sync  -dir DIR [-d 5s]                     what the disk takes for a synced write
       rig place [-cpu N] [-nice N] [-slice D] -- PROGRAM [ARGUMENT ...]

Folders of a run are made below $TMPDIR: it says which disk is measured.
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if os.Args[1] == hosts.Verb {
		fmt.Fprintln(os.Stderr, "rig:", hosts.Exec(os.Args[2:]))
		os.Exit(1)
	}
	run, ok := verbs()[os.Args[1]]
	if !ok {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := run(flag.NewFlagSet(os.Args[1], flag.ExitOnError), os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		os.Exit(1)
	}
}

func verbs() map[string]func(*flag.FlagSet, []string) error {
	return map[string]func(*flag.FlagSet, []string) error{
		"mock": mockVerb, "proxy": proxyVerb, "load": loadVerb, "place": placeVerb, "sync": syncVerb,
		"bench": benchVerb, "noisy": benchVerb, "fleet": benchVerb, "exact": exactVerb, "chaos": chaosVerb, "soak": soakVerb,
		"cluster": clusterVerb, "mutants": mutantsVerb,
	}
}

func mockVerb(fs *flag.FlagSet, args []string) error {
	addr := fs.String("addr", "127.0.0.1:9001", "listen address")
	journal := fs.String("journal", "", "append one JSON line for every request answered or cut")
	fs.Parse(args)
	return runMock(*addr, *journal)
}

func proxyVerb(fs *flag.FlagSet, args []string) error {
	addr := fs.String("addr", "127.0.0.1:9002", "listen address")
	to := fs.String("to", "http://127.0.0.1:9001", "upstream")
	fs.Parse(args)
	return runProxy(*addr, *to)
}

func loadVerb(fs *flag.FlagSet, args []string) error {
	var l load
	fs.StringVar(&l.Name, "name", "load", "name of the JSON line")
	fs.StringVar(&l.URL, "url", "", "full URL")
	fs.StringVar(&l.Key, "key", "", "bearer key")
	fs.StringVar(&l.Model, "model", "mock", "model name")
	fs.StringVar(&l.Mock, "mock", "", "directive for the mock, see mock.go")
	fs.StringVar(&l.PIDs, "pid", "", "comma-separated processes whose CPU, with all descendants, is measured")
	fs.StringVar(&l.Out, "out", "", "append a JSON line per request to this file")
	fs.IntVar(&l.Conns, "c", 64, "connections (closed loop)")
	fs.IntVar(&l.N, "n", 0, "requests in all (0 = until -d)")
	fs.IntVar(&l.Prompt, "prompt", 1024, "prompt bytes")
	fs.IntVar(&l.MaxTokens, "max-tokens", 0, "max_tokens of the request (0 = none)")
	fs.Float64Var(&l.Rate, "rate", 0, "requests per second (open loop, latency from the intended start)")
	fs.DurationVar(&l.Duration, "d", 5*time.Second, "how long")
	fs.DurationVar(&l.Slow, "slow", 0, "pause before each read of the answer")
	fs.DurationVar(&l.Pause, "pause", 0, "after an error, before the connection's next request")
	fs.DurationVar(&l.Timeout, "timeout", 30*time.Second, "per request")
	fs.DurationVar(&l.Drain, "drain", 1500*time.Millisecond, "wait before the last CPU reading, so that deferred work counts")
	fs.Float64Var(&l.Cancel, "cancel", 0, "fraction of requests that hang up, a third of them before the answer, the others after its first bytes")
	fs.BoolVar(&l.Stream, "stream", false, "stream")
	fs.BoolVar(&l.Mix, "mix", false, "every second request is a stream")
	fs.BoolVar(&l.Burst, "burst", false, "start all -n at once")
	fs.Parse(args)
	return l.run()
}

func mutantsVerb(fs *flag.FlagSet, args []string) error {
	bin := fs.String("bin", "bin", "folder of the programs")
	src := fs.String("src", ".", "folder of the sources")
	only := fs.String("only", "", "one mutant (default: all)")
	seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "of the campaigns")
	fs.Parse(args)
	return runMutants(*bin, *src, *only, *seed)
}

func benchVerb(fs *flag.FlagSet, args []string) error {
	bin := fs.String("bin", "bin", "folder of the programs")
	short := fs.Bool("short", false, "a few minutes instead of a quarter of an hour, with fewer samples")
	check := fs.Bool("check", false, "fail when the victim of a noisy neighbour or the neighbour of a lost node had any error")
	fs.Parse(args)
	return interruptible(func() error { return runBench(*bin, fs.Name(), *short, *check) })
}

func exactVerb(fs *flag.FlagSet, args []string) error {
	bin := fs.String("bin", "bin", "folder of the programs")
	n := fs.Int("n", 1000, "parallel requests")
	fs.Parse(args)
	return interruptible(func() error { return runExact(*bin, *n) })
}

func chaosVerb(fs *flag.FlagSet, args []string) error {
	bin := fs.String("bin", "bin", "folder of the programs")
	kills := fs.Int("kills", 1000, "how many")
	cuts := fs.Int("powercut", 0, "so many power cuts instead of kills")
	seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "of the random choices")
	fs.Parse(args)
	return interruptible(func() error {
		if *cuts > 0 {
			return runPowerCut(*bin, *cuts, *seed)
		}
		return runChaos(*bin, *kills, *seed)
	})
}

func soakVerb(fs *flag.FlagSet, args []string) error {
	bin := fs.String("bin", "bin", "folder of the programs")
	d := fs.Duration("d", time.Hour, "how long")
	fs.Parse(args)
	return interruptible(func() error { return runSoak(*bin, *d) })
}

// interruptible runs f in the foreground; on an interrupt the process ends and
// with it, by their parent-death signal, everything it started. Only what the
// kernel does not clean up by itself is undone here.
func interruptible(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	select {
	case err := <-done:
		return err
	case s := <-signals:
		leaveGroup()
		return fmt.Errorf("%s: the files of this run stay in %s", s, os.TempDir())
	}
}
