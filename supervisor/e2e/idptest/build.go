package idptest

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Source is the folder of the providers' own module, from supervisor/e2e.
const Source = "../../scripts/idp"

// Programs builds the providers once for all stories of a test binary. Make it
// with Build in TestMain or the first story that needs it.
type Programs struct {
	dir  string
	once sync.Once
	err  error
}

// NewPrograms keeps what it builds in dir.
func NewPrograms(dir string) *Programs { return &Programs{dir: dir} }

func (p *Programs) build(t testing.TB) {
	t.Helper()
	p.once.Do(func() {
		for name, pkg := range map[string]string{"dex": "github.com/dexidp/dex/cmd/dex", "samlidp": "./saml"} {
			cmd := exec.Command("go", "build", "-o", filepath.Join(p.dir, name), pkg)
			cmd.Dir = Source
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
			if out, err := cmd.CombinedOutput(); err != nil {
				p.err = fmt.Errorf("build %s: %w\n%s", name, err, out)
				return
			}
		}
	})
	if p.err != nil {
		t.Fatal(p.err)
	}
}

// process runs a provider until the test ends or stop is called.
type process struct {
	t    testing.TB
	name string
	args []string
	dir  string
	env  []string
	cmd  *exec.Cmd
	log  string
}

func (p *process) start(ready string) {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(p.name, p.args...)
	p.cmd.Dir, p.cmd.Env = p.dir, append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(ready)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			out, _ := os.ReadFile(p.log)
			p.t.Fatalf("%s does not answer at %s: %v\n%s", p.name, ready, err, out)
		}
	}
}

// tell shows what the provider said when the story has failed.
func (p *process) tell() {
	if p.t.Failed() {
		out, _ := os.ReadFile(p.log)
		p.t.Logf("%s:\n%s", p.name, out[max(0, len(out)-4000):])
	}
}

func (p *process) stop() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.cmd = nil
}

// freePort is a port of loopback that was free a moment ago: an issuer's address
// is part of its tokens, so it must be known before it starts.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
