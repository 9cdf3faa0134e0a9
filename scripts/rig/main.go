// Command rig is the project's test bench: a mock provider that keeps its own
// books, a bare reverse proxy as the reference that figures are compared with,
// and a load generator. It sends to loopback addresses only, every loop is
// bounded in count or time, and every figure is one JSON line on standard output.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

const usage = `usage: rig mock  -addr 127.0.0.1:9001 [-journal FILE]
       rig proxy -addr 127.0.0.1:9002 -to http://127.0.0.1:9001
       rig bench -bin bin [-short]
       rig chaos -bin bin [-kills 1000] [-seed N]
       rig load  -url URL -key KEY [-c 64 -d 5s | -rate 20 -d 5s | -n 1000 -burst] [-stream] [-mock "l=50 c=100"] ...
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	var err error
	switch fs := flag.NewFlagSet(os.Args[1], flag.ExitOnError); os.Args[1] {
	case "mock":
		addr := fs.String("addr", "127.0.0.1:9001", "listen address")
		journal := fs.String("journal", "", "append one JSON line for every request answered or cut")
		fs.Parse(os.Args[2:])
		err = runMock(*addr, *journal)
	case "proxy":
		addr := fs.String("addr", "127.0.0.1:9002", "listen address")
		to := fs.String("to", "http://127.0.0.1:9001", "upstream")
		fs.Parse(os.Args[2:])
		err = runProxy(*addr, *to)
	case "bench":
		bin := fs.String("bin", "bin", "folder of the programs")
		short := fs.Bool("short", false, "half as long")
		fs.Parse(os.Args[2:])
		err = runBench(*bin, *short)
	case "chaos":
		bin := fs.String("bin", "bin", "folder of the programs")
		kills := fs.Int("kills", 1000, "how many")
		seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "of the random choices")
		fs.Parse(os.Args[2:])
		err = runChaos(*bin, *kills, *seed)
	case "load":
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
		fs.DurationVar(&l.Timeout, "timeout", 30*time.Second, "per request")
		fs.DurationVar(&l.Drain, "drain", 1500*time.Millisecond, "wait before the last CPU reading, so that deferred work counts")
		fs.Float64Var(&l.Cancel, "cancel", 0, "fraction of requests that hang up after the first bytes")
		fs.BoolVar(&l.Stream, "stream", false, "stream")
		fs.BoolVar(&l.Burst, "burst", false, "start all -n at once")
		fs.Parse(os.Args[2:])
		err = l.run()
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		os.Exit(1)
	}
}
