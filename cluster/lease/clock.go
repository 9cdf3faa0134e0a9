package lease

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock tells the time since some fixed moment. It never goes back.
type Clock interface {
	Now() time.Duration
}

// BootTime is the clock of this machine: CLOCK_BOOTTIME, the time since boot
// with suspend.
type BootTime struct{}

// Now implements Clock. It cannot fail on a kernel that runs Go.
func (BootTime) Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("internal error: read CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(t.Nano())
}
