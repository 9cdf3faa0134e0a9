package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// syncVerb measures what the disk under a folder takes for the smallest durable
// write: 4 KiB in place and fdatasync, 20 times a second as the victim's
// requests. It is the control for latencies that include a synced log.
func syncVerb(fs *flag.FlagSet, args []string) error {
	dir := fs.String("dir", ".", "folder")
	d := fs.Duration("d", 5*time.Second, "how long")
	fs.Parse(args)
	f, err := os.Create(filepath.Join(*dir, "sync-control"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4<<10)
	if _, err := f.Write(block); err != nil {
		return err
	}
	if err := f.Sync(); err != nil { // after this no write changes metadata
		return err
	}
	var took []time.Duration
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); time.Since(start) < *d; <-tick.C {
		began := time.Now()
		if _, err := f.WriteAt(block, 0); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return json.NewEncoder(os.Stdout).Encode(result{Name: "sync", OK: len(took), P50: quantile(took, 0.5), P99: quantile(took, 0.99), Max: quantile(took, 1)})
}
