package limits

import "time"

// calendar tells day and month of a tenant. Both only ever grow.
type calendar struct {
	loc     *time.Location
	seen    int64 // latest wall clock, Unix nanoseconds
	day     int64 // yyyymmdd
	month   int64 // yyyymm
	dayEnd  int64 // Unix nanoseconds; the day is looked up again from here on
	started bool
}

// advance moves the calendar to a wall clock, never back.
func (c *calendar) advance(wall int64) {
	if wall > c.seen {
		c.seen = wall
	}
	if c.started && c.seen < c.dayEnd {
		return
	}
	t := time.Unix(0, c.seen).In(c.loc)
	y, m, d := t.Date()
	c.day = max(c.day, int64(y)*10000+int64(m)*100+int64(d))
	c.month = max(c.month, int64(y)*100+int64(m))
	// Where midnight does not exist, Date may answer an hour before the new day:
	// then the day is looked up anew at each call for that hour, and stays.
	c.dayEnd = time.Date(y, m, d+1, 0, 0, 0, 0, c.loc).UnixNano()
	c.started = true
}

// move changes the time zone. A day that has begun is not taken back.
func (c *calendar) move(loc *time.Location) {
	c.loc = loc
	if c.started {
		c.dayEnd = 0
		c.advance(c.seen)
	}
}

// nextDayIn is how long until the day ends.
func (c *calendar) nextDayIn() time.Duration {
	return time.Duration(max(int64(time.Second), c.dayEnd-c.seen))
}

// window is the use in one calendar window. Reservations keep a pointer to the
// window they were made in.
type window struct {
	key      int64 // day or month
	requests int64
	tokens   count
	cost     count
}

func (w *window) reserve(requests, tokens, cost int64) {
	w.requests += requests
	w.tokens.held.add(tokens)
	w.cost.held.add(cost)
}
