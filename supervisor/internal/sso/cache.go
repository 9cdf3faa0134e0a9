package sso

import (
	"sync"
	"time"
)

// maxCached bounds the tokens that are remembered.
const maxCached = 8192

// cache remembers verified tokens by the SHA-256 of the whole token: two tokens
// that are alike in any part are still two. It is safe for concurrent use.
type cache struct {
	limit int

	mu    sync.RWMutex
	known map[[32]byte]*identity
	swept time.Time
}

func newCache(limit int) *cache {
	return &cache{limit: limit, known: map[[32]byte]*identity{}}
}

// get answers what is known of a token that is still good.
func (c *cache) get(sum [32]byte, now time.Time) *identity {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v := c.known[sum]
	if v == nil || !v.good(now) {
		return nil
	}
	return v
}

// good reports whether a token has not expired, nor any key of its issuer been
// withdrawn since it was checked.
func (v *identity) good(now time.Time) bool {
	return now.Before(v.expires) && v.generation == v.issuer.generation.Load()
}

// put remembers a token. A full cache forgets the dead first, looking for them at
// most once a second, and then anyone: that costs one signature check.
func (c *cache) put(sum [32]byte, v *identity, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= c.limit && now.Sub(c.swept) >= time.Second {
		c.swept = now
		for k, old := range c.known {
			if !old.good(now) {
				delete(c.known, k)
			}
		}
	}
	for k := range c.known {
		if len(c.known) < c.limit {
			break
		}
		delete(c.known, k)
	}
	c.known[sum] = v
}
