package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// TestTLS: with a certificate both ports speak TLS, the data plane HTTP/2 as
// well; the command line trusts it by --ca-file; nothing is served in clear.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pool := certificate(t, dir)
	n := newNode(t)
	n.secure = pool
	n.configure("tls: {cert_file: " + filepath.Join(dir, "crt") + ", key_file: " + filepath.Join(dir, "key") + "}")
	n.start()
	ca := []string{"--ca-file", filepath.Join(dir, "crt")}
	n.must(`kind: Tenant
metadata: {name: bank}
spec: {owner: o@bank.example, cost_center: CC-1}
---
kind: Project
metadata: {name: app, tenant: bank}
spec: {environments: {prod: {}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: bank, project: app}
spec: {owner: dev@bank.example}
---
`+echoRoute, append([]string{"apply", "-f", "-"}, ca...)...)
	k := n.key("bank", "prod", ca...)
	for _, h2 := range []bool{false, true} {
		conf := &tls.Config{RootCAs: pool}
		transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: h2, DisableKeepAlives: !h2}
		defer transport.CloseIdleConnections()
		proto := ""
		sdk := openai.NewClient(option.WithBaseURL(n.url()+"/v1"), option.WithAPIKey(k.Key), option.WithHTTPClient(&http.Client{Transport: transport}),
			option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
				resp, err := next(r)
				if err == nil {
					proto = resp.Proto
				}
				return resp, err
			}))
		p := openai.ChatCompletionNewParams{Model: "echo", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("over a wire")}}
		got, err := sdk.Chat.Completions.New(context.Background(), p)
		check(t, err)
		s := sdk.Chat.Completions.NewStreaming(context.Background(), p)
		var acc openai.ChatCompletionAccumulator
		for s.Next() {
			acc.AddChunk(s.Current())
		}
		check(t, s.Err())
		if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]; got.Choices[0].Message.Content != "over a wire" || acc.Choices[0].Message.Content != "over a wire" || proto != want {
			t.Errorf("%s: %q and %q", proto, got.Choices[0].Message.Content, acc.Choices[0].Message.Content)
		}
	}
	for _, addr := range []string{n.url(), n.env["BULKHEAD_ADDR"]} {
		resp, err := client.Get(strings.Replace(addr, "https", "http", 1) + "/v1/models")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("%s in clear: %s", addr, resp.Status)
			}
		}
	}
}

// certificate writes a certificate for 127.0.0.1 and its key, and answers who
// trusts it.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bulkhead test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	write(t, filepath.Join(dir, "crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, filepath.Join(dir, "key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	pool := x509.NewCertPool()
	crt, err := os.ReadFile(filepath.Join(dir, "crt"))
	check(t, err)
	pool.AppendCertsFromPEM(crt)
	return pool
}
