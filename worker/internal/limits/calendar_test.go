package limits_test

import (
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

func TestCalendar(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(y int, m time.Month, d, hh, mm int) time.Time { return time.Date(y, m, d, hh, mm, 0, 0, berlin) }
	perDay := &manifest.Limits{Daily: &manifest.Window{Requests: new(int64(1))}}
	perMonth := &manifest.Limits{Monthly: &manifest.Window{Requests: new(int64(1))}}
	for name, c := range map[string]struct {
		l     *manifest.Limits
		times []time.Time
		pass  []bool
	}{
		"day border":        {perDay, []time.Time{at(2026, 5, 4, 23, 59), at(2026, 5, 4, 23, 59), at(2026, 5, 5, 0, 0)}, []bool{true, false, true}},
		"23 hours":          {perDay, []time.Time{at(2026, 3, 29, 0, 0), at(2026, 3, 29, 23, 59), at(2026, 3, 30, 0, 0)}, []bool{true, false, true}},
		"25 hours":          {perDay, []time.Time{at(2026, 10, 25, 0, 0), at(2026, 10, 25, 0, 0).Add(24*time.Hour + 59*time.Minute), at(2026, 10, 26, 0, 0)}, []bool{true, false, true}},
		"month border":      {perMonth, []time.Time{at(2026, 1, 31, 23, 59), at(2026, 2, 1, 0, 0), at(2026, 2, 28, 23, 59), at(2026, 3, 1, 0, 0)}, []bool{true, true, false, true}},
		"year border":       {perMonth, []time.Time{at(2026, 12, 31, 23, 59), at(2027, 1, 1, 0, 0)}, []bool{true, true}},
		"clock back":        {perDay, []time.Time{at(2026, 5, 5, 1, 0), at(2026, 5, 4, 1, 0), at(2026, 5, 5, 2, 0)}, []bool{true, false, false}},
		"clock ahead, back": {perDay, []time.Time{at(2026, 5, 4, 1, 0), at(2026, 5, 5, 1, 0), at(2026, 5, 4, 2, 0), at(2026, 5, 5, 2, 0), at(2026, 5, 6, 2, 0)}, []bool{true, true, false, false, true}},
		"leap day":          {perDay, []time.Time{at(2028, 2, 29, 1, 0), at(2028, 2, 29, 23, 0), at(2028, 3, 1, 0, 0)}, []bool{true, false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimiterIn(t, "Europe/Berlin", c.l)
			for i, now := range c.times {
				if e := pass(t, l, ask(now, 1, 1)); (e == nil) != c.pass[i] {
					t.Errorf("at %v: got %v, want pass %v", now, e, c.pass[i])
				}
			}
		})
	}
}

// Santiago's midnight of 2022-09-11 does not exist.
func TestDayWithoutMidnight(t *testing.T) {
	santiago, err := time.LoadLocation("America/Santiago")
	if err != nil {
		t.Fatal(err)
	}
	l := newLimiterIn(t, "America/Santiago", &manifest.Limits{Daily: &manifest.Window{Requests: new(int64(1))}})
	day, passed := "", 0
	for now := time.Date(2022, 9, 10, 12, 0, 0, 0, santiago); now.Before(time.Date(2022, 9, 12, 12, 0, 0, 0, santiago)); now = now.Add(5 * time.Minute) {
		fresh := now.In(santiago).Format(time.DateOnly) != day
		if e := pass(t, l, ask(now, 1, 1)); (e == nil) != fresh {
			t.Fatalf("at %v: got %v", now, e)
		}
		if fresh {
			passed++
		}
		day = now.In(santiago).Format(time.DateOnly)
	}
	if passed != 3 {
		t.Errorf("%d days, want 3", passed)
	}
}
