package gateway

import "time"

// Caps bound what one tenant may take of the shared front door. A zero field
// takes its default; the same caps apply to every tenant.
type Caps struct {
	Connections   int           // client connections whose latest request was this tenant's; 1024
	InFlight      int           // requests between admission and last byte; 128
	Entering      int           // requests that enter the worker at a time while other tenants are about; the others in flight wait; 16
	EnteringAlone int           // the same while no other tenant is; 64
	EnterTime     time.Duration // longest time that entering counts; 20 ms
	BufferedBytes int64         // bytes of request and answer held in the gateway; 16 MiB
	MaxBody       int64         // largest request body in bytes; 32 MiB
	MinBodyRate   int64         // bytes per second a body must average after BodyGrace; 1 KiB/s
	BodyGrace     time.Duration // longest silence in a body, and time before MinBodyRate counts; 10 s
	WriteTimeout  time.Duration // longest time a client may take to accept a chunk; 30 s
	AnswerTimeout time.Duration // longest silence of a worker; 15 min
	Park          time.Duration // how long a refusal over a cap is held; 100 ms
	ParkingLot    int           // held refusals; beyond it the connection is closed; 512
}

func (c Caps) withDefaults() Caps {
	setDefault(&c.Connections, 1024)
	setDefault(&c.InFlight, 128)
	setDefault(&c.Entering, 16)
	setDefault(&c.EnteringAlone, 64)
	setDefault(&c.EnterTime, 20*time.Millisecond)
	setDefault(&c.BufferedBytes, 16<<20)
	setDefault(&c.MaxBody, 32<<20)
	setDefault(&c.MinBodyRate, 1<<10)
	setDefault(&c.BodyGrace, 10*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.AnswerTimeout, 15*time.Minute)
	setDefault(&c.Park, 100*time.Millisecond)
	setDefault(&c.ParkingLot, 512)
	return c
}

// Door bounds what clients may take before their tenant is known. A zero field
// takes its default.
type Door struct {
	HeaderTimeout  time.Duration // from a head's first byte to its last, and for the TLS handshake; 5 s
	IdleTimeout    time.Duration // between requests of a connection; 120 s
	Connections    int           // all client connections; 16384
	PerIP          int           // connections of one address (IPv6: /64) that no request has authenticated yet; 1024
	FailuresPerMin int           // wrong credentials of one address that are answered 401; the rest get 429; 120
	Streams        int           // concurrent HTTP/2 streams of a connection; 128
}

func (d Door) withDefaults() Door {
	setDefault(&d.HeaderTimeout, 5*time.Second)
	setDefault(&d.IdleTimeout, 120*time.Second)
	setDefault(&d.Connections, 16384)
	setDefault(&d.PerIP, 1024)
	setDefault(&d.FailuresPerMin, 120)
	setDefault(&d.Streams, 128)
	return d
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
