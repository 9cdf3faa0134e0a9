package host_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk/wire"
)

// play is the plugin's side: a process that misbehaves in one way.
func play(role string) {
	dir := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	line := func(network, addr, protocol, cert string) {
		fmt.Printf("1|1|%s|%s|%s|%s\n", network, addr, protocol, cert)
		select {}
	}
	switch role {
	case "exit":
		os.Exit(3)
	case "noise":
		fmt.Println("hello \x1b[31m world")
	case "longline":
		fmt.Print(strings.Repeat("x", 32<<20))
	case "silent":
	case "tcp":
		line("tcp", "127.0.0.1:9", "grpc", "")
	case "tcppath":
		line("tcp", dir+"/s", "grpc", "")
	case "elsewhere":
		line("unix", "/run/other.sock", "grpc", "")
	case "climb":
		line("unix", dir+"/../other.sock", "grpc", "")
	case "netrpc":
		line("unix", dir+"/s", "netrpc", "")
	case "version":
		fmt.Printf("1|99|unix|%s/s|grpc|\n", dir)
	case "nocert", "wrongcert":
		impostor(role, filepath.Join(dir, "s"), line)
	case "badname", "badendpoint", "badauth", "liar":
		sdk.Serve(liar{role})
	}
	select {}
}

// impostor serves the protocol well, but without the certificate it tells of.
func impostor(role, path string, line func(network, addr, protocol, cert string)) {
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	var opts []grpc.ServerOption
	told := ""
	if role == "wrongcert" {
		served := newCert()
		told = base64.RawStdEncoding.EncodeToString(newCert().Certificate[0])
		opts = append(opts, grpc.Creds(credentials.NewServerTLSFromCert(&served)))
	}
	g := grpc.NewServer(opts...)
	wire.RegisterAdapterServer(g, sdk.NewServer(liar{}))
	go g.Serve(l) // until the process is killed
	line("unix", path, "grpc", told)
}

func newCert() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// liar is an adapter whose calls choose the lie by their model.
type liar struct{ role string }

func (l liar) Info() provider.Info {
	i := provider.Info{Name: "liar", Version: "1", Endpoints: []provider.Endpoint{provider.ChatCompletions}, AuthHeader: "X-Cred"}
	switch l.role {
	case "badname":
		i.Name = "a\nb"
	case "badendpoint":
		i.Endpoints = []provider.Endpoint{"admin"}
	case "badauth":
		i.AuthHeader = "Host"
	}
	return i
}

func (liar) Request(ctx context.Context, c *provider.Call) (*provider.Request, error) {
	r := &provider.Request{Path: "/x"}
	switch c.Model {
	case "path":
		r.Path = "x"
	case "path-host":
		r.Path = "//169.254.169.254/"
	case "path-query":
		r.Path = "/x?y=z"
	case "path-up":
		r.Path = "/x/../../admin"
	case "header-host":
		r.Header = map[string]string{"host": "evil"}
	case "header-auth":
		r.Header = map[string]string{"Authorization": "Bearer other"}
	case "header-cred":
		r.Header = map[string]string{"x-cred": "other"}
	case "header-crlf":
		r.Header = map[string]string{"X-A": "a\r\nHost: evil"}
	case "header-many":
		r.Header = map[string]string{}
		for i := range 100 {
			r.Header[fmt.Sprint("X-", i)] = "v"
		}
	case "bound":
		r.InputBound = -1
	case "panic":
		panic("as asked")
	case "crash":
		os.Exit(1)
	case "hang":
		select {}
	case "error-kind":
		return nil, bulkhead.E(bulkhead.Unauthenticated, "Your-Key", "line\nbreak")
	case "flood-log":
		for range 10_000 {
			fmt.Fprintln(os.Stderr, "\x1b[31m"+strings.Repeat("y", 5000)+"\r")
		}
	}
	return r, nil
}

func (liar) Answer(_ context.Context, c *provider.Call, _ int, _ []byte) (*provider.Answer, error) {
	switch c.Model {
	case "usage-negative":
		return &provider.Answer{Usage: &bulkhead.Usage{Output: -5}}, nil
	case "usage-huge":
		return &provider.Answer{Usage: &bulkhead.Usage{Input: 1 << 50}}, nil
	case "failure":
		return &provider.Answer{Err: &provider.Failure{Kind: bulkhead.Kind(200), Message: "a\nb", RetryAfter: 1 << 60}}, nil
	}
	return &provider.Answer{}, nil
}

func (liar) Stream(_ context.Context, c *provider.Call) (provider.Stream, error) {
	if c.Model == "stream-error" {
		return nil, errors.New("no streams today")
	}
	return &lyingStream{lie: c.Model}, nil
}

type lyingStream struct {
	lie string
	n   int64
}

func (*lyingStream) Close() {}

func (s *lyingStream) Translate([]byte) (provider.Delta, error) {
	s.n++
	switch s.lie {
	case "stream-flood":
		return provider.Delta{Data: []byte(strings.Repeat("data: 1\n\n", 1<<18))}, nil
	case "stream-partial":
		return provider.Delta{Data: []byte("data: 1")}, nil
	case "stream-output":
		return provider.Delta{Output: -1}, nil
	case "stream-shrink":
		return provider.Delta{Output: 8 - s.n, Usage: &bulkhead.Usage{Input: -s.n}}, nil
	case "stream-crash":
		os.Exit(1)
	}
	return provider.Delta{}, nil
}

func (liar) Respond(ctx context.Context, c *provider.Call, _ *provider.Request, emit func(int, []byte) error) error {
	if c.Model == "status" {
		return emit(0, nil)
	}
	if err := emit(200, []byte("data: 1\n\n")); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}
