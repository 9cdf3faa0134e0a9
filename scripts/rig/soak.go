package main

import (
	"flag"
	"time"
)

var _ = flag.ErrHelp

func runSoak(bin string, d time.Duration) error { return nil }
