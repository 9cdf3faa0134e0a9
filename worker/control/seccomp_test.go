package control

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// jailVar makes the test binary a worker that may neither make nor connect nor
// bind a socket, and uses the broker.
const jailVar = "BULKHEAD_TEST_JAIL"

func TestMain(m *testing.M) {
	if os.Getenv(jailVar) != "" {
		if err := jailed(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func jailed() error {
	if err := forbid(unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_SOCKETPAIR); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	conn, err := FileBrokerConn(os.NewFile(3, "broker"))
	if err != nil {
		return err
	}
	b := NewBroker(conn)
	defer b.Close()
	up, err := b.Dial(context.Background(), "main")
	if err != nil {
		return err
	}
	defer up.Close()
	if _, err := io.WriteString(up, "from the jail"); err != nil {
		return err
	}
	return nil
}

// forbid kills the process that makes one of the system calls.
func forbid(calls ...uint32) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}
	for i, nr := range calls {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(calls) - i), K: nr})
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 || r != 0 {
		return fmt.Errorf("result %d, %w", r, errno)
	}
	return nil
}

func TestBrokerNeedsNoSocketCalls(t *testing.T) {
	near, far := tcpPair(t)
	a, b := socketPair(t, unix.SOCK_SEQPACKET)
	server, err := FileBrokerConn(b)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{jailVar + "=1", "GORACE=atexit_sleep_ms=0"}
	cmd.ExtraFiles = []*os.File{a}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.Close()
	q, err := server.ReadRequest()
	if err == nil {
		f, _ := near.File()
		err = server.SendReply(BrokerReply{ID: q.ID}, f)
		f.Close()
	}
	if exit := cmd.Wait(); exit != nil || err != nil {
		t.Fatalf("jailed worker: %v, %v", exit, err)
	}
	near.Close()
	if got, err := io.ReadAll(far); err != nil || string(got) != "from the jail" {
		t.Fatalf("got %q, %v", got, err)
	}
}
