package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// client is one connection, dialled when needed.
type client struct {
	c net.Conn
	r *bufio.Reader
}

func (c *client) close() {
	if c.c != nil {
		c.c.Close()
		c.c = nil
	}
}

// one sends a request over c and takes the answer in.
func (l *load) one(c *client, from time.Time) {
	n := l.sequence.Add(1)
	cancel := l.Cancel > 0 && float64(n%100) < l.Cancel*100
	x := exchange{stream: l.Stream || l.Mix && n%2 == 1, cancel: cancel,
		early: cancel && n%3 == 0, patience: time.Duration(n%10) * time.Millisecond}
	err := l.exchange(c, from, &x)
	took := time.Since(from)
	if err != nil && l.Pause > 0 {
		defer time.Sleep(l.Pause) // after the lock is given back
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case cancel && err == nil:
		l.cancelled++
	case err == nil:
		l.ok++
		l.latencies = append(l.latencies, took)
		l.firsts = append(l.firsts, x.first)
	default:
		l.errors[err.Error()]++
	}
	if l.out != nil {
		fmt.Fprintf(l.out, "{\"request_id\":%q,\"status\":%d,\"complete\":%t,\"cancelled\":%t,\"error\":%q,\"at_us\":%d,\"took_us\":%d}\n",
			x.id, x.status, err == nil && !cancel, cancel, errText(err), from.UnixMicro(), took.Microseconds())
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// exchange is a request and what came of it.
type exchange struct {
	stream, cancel bool
	early          bool          // with cancel: hang up before the answer
	patience       time.Duration // with early: how long after the request
	first          time.Duration // to the head of the answer
	id             string        // of the answer's head
	status         int           // 0 = no head was read
}

// redialPause keeps a client from spinning while the gateway is down.
const redialPause = 10 * time.Millisecond

func (l *load) exchange(c *client, from time.Time, x *exchange) (err error) {
	if c.c == nil {
		if c.c, err = net.DialTimeout("tcp", l.addr, 5*time.Second); err != nil {
			c.c = nil
			time.Sleep(redialPause)
			return errors.New("dial")
		}
		c.r = bufio.NewReaderSize(c.c, 16<<10)
	}
	keep := false
	defer func() {
		if !keep {
			c.close()
		}
	}()
	raw := l.plain
	if x.stream {
		raw = l.streamed
	}
	c.c.SetDeadline(time.Now().Add(l.Timeout))
	if _, err = c.c.Write(raw); err != nil {
		return errors.New("write")
	}
	if x.early { // the connection closes, whatever the gateway is doing by then
		time.Sleep(x.patience)
		return nil
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return errors.New("read head")
	}
	x.first = time.Since(from)
	x.id, x.status = resp.Header.Get("X-Request-Id"), resp.StatusCode
	if x.cancel && x.status == http.StatusOK {
		resp.Body.Read(make([]byte, 16))
		return nil
	}
	done, err := l.take(resp)
	if err != nil {
		return errors.New("read body")
	}
	keep = !resp.Close // a refusal is no reason to dial again
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("http_%d", resp.StatusCode)
	case x.stream && !done:
		return errors.New("stream without [DONE]")
	}
	return nil
}

// take reads an answer; done says that a stream ended with [DONE].
func (l *load) take(resp *http.Response) (done bool, err error) {
	buf := make([]byte, 32<<10)
	if l.Slow > 0 {
		buf = buf[:512]
	}
	var tail []byte
	for {
		if l.Slow > 0 {
			time.Sleep(l.Slow)
		}
		n, err := resp.Body.Read(buf)
		l.bytes.Add(int64(n))
		tail = append(tail, buf[:n]...)
		if len(tail) > 64 {
			tail = append(tail[:0], tail[len(tail)-64:]...)
		}
		if err == io.EOF {
			return bytes.Contains(tail, []byte("[DONE]")), nil
		}
		if err != nil {
			return false, err
		}
	}
}
