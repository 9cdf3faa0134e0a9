package spawn

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func packetPair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	a, f, err := BrokerPair()
	if err != nil {
		t.Fatal(err)
	}
	b, err := packetConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestPackets(t *testing.T) {
	a, b := packetPair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := sendPacket(a, request{ID: 5, Op: opPlugin}, []*os.File{null, null}); err != nil {
		t.Fatal(err)
	}
	var r request
	files, err := receivePacket(b, &r)
	if err != nil || r.ID != 5 || r.Op != opPlugin || len(files) != 2 {
		t.Fatalf("got %+v, %d files, %v", r, len(files), err)
	}
	for _, f := range files {
		fd, err := number(f)
		if err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d would be inherited", fd)
		}
	}
	closeAll(files)
	tooMany := slices.Repeat([]*os.File{null}, maxFiles+1)
	for name, err := range map[string]error{
		"a large message":      sendPacket(a, request{Name: strings.Repeat("x", maxPacket)}, nil),
		"many descriptors":     sendPacket(a, request{}, tooMany),
		"a missing descriptor": sendPacket(a, request{}, []*os.File{nil}),
	} {
		if err == nil {
			t.Errorf("%s was sent", name)
		}
	}
}

func TestPacketsThatAreTooLarge(t *testing.T) {
	a, b := packetPair(t)
	send := func(text []byte, fds int) {
		t.Helper()
		list := make([]int, fds)
		for i := range list {
			list[i] = 0
		}
		var rights []byte
		if fds > 0 {
			rights = unix.UnixRights(list...)
		}
		if _, _, err := a.WriteMsgUnix(text, rights, nil); err != nil {
			t.Fatal(err)
		}
	}
	before := countFDs(t)
	for _, c := range []struct {
		text []byte
		fds  int
	}{{[]byte("{}"), maxFiles + 3}, {append([]byte(`{}`), make([]byte, maxPacket)...), 1}, {[]byte("{"), 2}, {[]byte(`[]`), 0}} {
		send(c.text, c.fds)
		var r request
		if _, err := receivePacket(b, &r); err == nil {
			t.Errorf("%d bytes with %d descriptors were taken", len(c.text), c.fds)
		}
	}
	if after := countFDs(t); after != before {
		t.Errorf("%d descriptors were open, now %d are", before, after)
	}
	a.Close()
	var r request
	if _, err := receivePacket(b, &r); err == nil {
		t.Error("the end was taken for a message")
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
