package replica

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"testing"
)

func frames() []frame {
	p := Point{7, [32]byte{1, 2}}
	return []frame{
		{typ: typeHello, hello: hello{"acme", 9, "abc"}},
		{typ: typeSeal, epoch: 3},
		{typ: typePosition, position: Position{Epoch: 2, Point: p, Base: Point{}, Receiver: "abc", Damaged: true}},
		{typ: typePosition, position: Position{Receiver: "abc", Incomplete: true}},
		{typ: typeAsk, seq: 5},
		{typ: typePoint, seq: 5, point: p},
		{typ: typeFetch, point: p},
		{typ: typeRun, run: run{prev: p, segment: 3, offset: 512, data: []byte{}}},
		{typ: typeAppend, run: run{prev: p, segment: 3, offset: 1024, committed: 6, data: make([]byte, 1024)}},
		{typ: typeAcked, seq: 8},
		{typ: typeTruncate, truncate: truncation{from: p, to: Point{}, reset: true}},
		{typ: typeWhole, seq: 8},
		{typ: typeError, refusal: &refusal{code: 1, promised: 4, text: "no"}},
	}
}

func TestFramesRoundTrip(t *testing.T) {
	var wire []byte
	for _, f := range frames() {
		wire = f.appendTo(wire)
	}
	r := bufio.NewReader(bytes.NewReader(wire))
	for _, want := range frames() {
		got, _, err := readFrame(r, nil)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("frame %d: read %+v, %v; wrote %+v", want.typ, got, err, want)
		}
	}
	if _, _, err := readFrame(r, nil); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestFramesRefused(t *testing.T) {
	good := (&frame{typ: typeSeal, epoch: 3}).appendTo(nil)
	version := (&frame{typ: typeHello, hello: hello{"acme", 9, "abc"}}).appendTo(nil)
	version[5]++
	for name, b := range map[string][]byte{
		"empty":            {0, 0, 0, 0},
		"too long":         binary.BigEndian.AppendUint32(nil, maxFrame+1),
		"unknown type":     {0, 0, 0, 1, 99},
		"short body":       {0, 0, 0, 2, byte(typeSeal), 1},
		"more than a body": append(binary.BigEndian.AppendUint32(nil, uint32(len(good)-4+1)), append(good[4:len(good):len(good)], 0)...),
		"another version":  version,
		"part of a sector": (&frame{typ: typeRun, run: run{data: make([]byte, 100)}}).appendTo(nil),
		"odd offset":       (&frame{typ: typeRun, run: run{offset: 5}}).appendTo(nil),
		"hash of nothing":  (&frame{typ: typeFetch, point: Point{0, [32]byte{1}}}).appendTo(nil),
	} {
		if _, _, err := readFrame(bufio.NewReader(bytes.NewReader(b)), nil); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusalsCrossTheWire(t *testing.T) {
	for code, want := range refusalCodes {
		r := refuse(want, 5)
		if r.code != code {
			t.Errorf("%v has code %d, want %d", want, r.code, code)
		}
		f := frame{typ: typeError, refusal: r}
		got, _, err := readFrame(bufio.NewReader(bytes.NewReader(f.appendTo(nil))), nil)
		if err != nil || !errors.Is(got.refusal, want) {
			t.Errorf("%v became %v, %v", want, got.refusal, err)
		}
	}
	long := refuse(errors.New(string(make([]byte, 5000))), 0)
	if len(long.text) > maxText || long.code != codeOther {
		t.Errorf("text of %d bytes, code %d", len(long.text), long.code)
	}
}

func FuzzFrame(f *testing.F) {
	for _, fr := range frames() {
		f.Add(fr.appendTo(nil)[4:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > maxFrame {
			return
		}
		got, err := parseFrame(b)
		if err != nil {
			return
		}
		if again := got.appendTo(nil)[4:]; !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func FuzzPromise(f *testing.F) {
	f.Add(promise{7, true, 9}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePromise(b)
		if err == nil && !bytes.Equal(p.encode()[:13], b[:13]) {
			t.Errorf("%x became %x", b, p.encode())
		}
	})
}
