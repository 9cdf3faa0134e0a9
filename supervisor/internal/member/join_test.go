package member

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
)

func code(err error) string {
	var e *bulkhead.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// deaf is an address where nobody listens.
func deaf(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().String()
}

// TestJoin: an empty node gets everything it needs, and a token lets in one.
func TestJoin(t *testing.T) {
	f := found1(t)
	s := stopped(t, "n2")
	token := f.token(f.addr)
	check(t, s.join(t, token))
	private(t, s)
	i, err := Open(s.Config.DataDir)
	check(t, err)
	if i.ClusterID != f.id || i.NodeID != "n2" || i.Peers["n1"] != f.addr || len(i.Peers) != 2 {
		t.Errorf("%+v", i.info)
	}
	if _, err := i.Certificate().Leaf.Verify(x509.VerifyOptions{Roots: i.Roots(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("the certificate is not of the root it trusts: %v", err)
	}
	theirs, err := f.clusterKey(false)
	check(t, err)
	ours, err := s.clusterKey(false)
	if err != nil || !bytes.Equal(ours, theirs) {
		t.Errorf("the cluster key is another: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(s.Config.DataDir, "admin.token")); err != nil || strings.TrimSpace(string(b)) != adminToken {
		t.Errorf("admin token %q, %v", b, err)
	}
	if n, ok := f.raft.State().Node("n2"); !ok || n.Version != "v1" || n.Receiver == "" || n.Incarnation != 1 {
		t.Errorf("%+v", n)
	}

	if err := s.join(t, f.token(f.addr)); err == nil || !strings.Contains(err.Error(), f.id) {
		t.Errorf("a member joined again: %v", err)
	}
	late := stopped(t, "n3")
	if err := late.join(t, token); code(err) != "token_used" {
		t.Errorf("a second one with the token: %v", err)
	}
	untouched(t, late)
	check(t, late.join(t, f.token(f.addr))) // what was refused has left nothing in its way
}

// untouched fails when something of a cluster is on the node.
func untouched(t testing.TB, s Setup) {
	t.Helper()
	if _, err := Open(s.Config.DataDir); !errors.Is(err, ErrNone) {
		t.Errorf("%s is a member: %v", s.Config.NodeID, err)
	}
	if !missing(s.Config.Cluster.KeyFile) || !missing(filepath.Join(s.Config.DataDir, "admin.token")) {
		t.Error("a secret was stored by a join that was refused")
	}
}

// TestJoinSearches: addresses are tried until one answers; the operator's first.
func TestJoinSearches(t *testing.T) {
	f := found1(t)
	other := found1(t)
	check(t, stopped(t, "n2").join(t, f.token(deaf(t), other.addr, f.addr)))
	check(t, stopped(t, "n3").join(t, f.token(deaf(t)), deaf(t), f.addr))
	if len(other.raft.State().Nodes()) != 1 || len(f.raft.State().Nodes()) != 3 {
		t.Error("somebody joined the wrong cluster")
	}
	lonely := stopped(t, "n4")
	if err := lonely.join(t, f.token()); err == nil || !strings.Contains(err.Error(), "--peer") {
		t.Errorf("nowhere to ask: %v", err)
	}
	if err := lonely.join(t, f.token(deaf(t))); err == nil || code(err) != "" {
		t.Errorf("nobody answers: %v", err)
	}
	untouched(t, lonely)
}

// TestJoinTheWrongCluster: the token pins its cluster: another one is refused by
// the node, and by itself; the token is good for its own afterwards.
func TestJoinTheWrongCluster(t *testing.T) {
	f, other := found1(t), found1(t)
	s := stopped(t, "n2")
	token := f.token(other.addr)
	err := s.join(t, token)
	if err == nil {
		t.Fatal("joined a cluster that the token does not pin")
	}
	untouched(t, s)
	if len(other.raft.State().Nodes()) != 1 {
		t.Error("the other cluster took it in")
	}
	check(t, s.join(t, token, f.addr))

	forged := stopped(t, "n3")
	of := strings.SplitN(f.token(f.addr), ".", 4)
	secret := strings.SplitN(other.token(), ".", 4)
	of[3] = secret[3] + of[3][len(strings.SplitN(of[3], ".", 2)[0]):] // another's secret
	if err := forged.join(t, strings.Join(of, ".")); code(err) != "token_unknown" {
		t.Errorf("a token with a wrong secret: %v", err)
	}
	if err := forged.join(t, "bh1.none"); err == nil {
		t.Error("no token at all")
	}
	untouched(t, forged)
}

// TestJoinWithAKey: the same key may be there already; another one stays, and the
// node does not join; one that cannot be read does not cost the token.
func TestJoinWithAKey(t *testing.T) {
	f := found1(t)
	key, err := os.ReadFile(f.Config.Cluster.KeyFile)
	check(t, err)
	same := stopped(t, "n2")
	check(t, os.WriteFile(same.Config.Cluster.KeyFile, key, 0o600))
	check(t, same.join(t, f.token(f.addr)))

	wrong, theirs := stopped(t, "n3"), randomKey()
	check(t, os.WriteFile(wrong.Config.Cluster.KeyFile, []byte(theirs), 0o600))
	if err := wrong.join(t, f.token(f.addr)); err == nil || !strings.Contains(err.Error(), "is not the cluster's") {
		t.Errorf("another key: %v", err)
	}
	if _, err := Open(wrong.Config.DataDir); !errors.Is(err, ErrNone) {
		t.Errorf("it is a member: %v", err)
	}
	if b, err := os.ReadFile(wrong.Config.Cluster.KeyFile); err != nil || string(b) != theirs {
		t.Errorf("the operator's key was replaced: %v", err)
	}

	token := f.token(f.addr)
	for name, spoil := range map[string]func(s *Setup){
		"no key":         func(s *Setup) { check(t, os.WriteFile(s.Config.Cluster.KeyFile, []byte("short"), 0o600)) },
		"others read it": func(s *Setup) { check(t, os.WriteFile(s.Config.Cluster.KeyFile, key, 0o644)) },
		"no credential": func(s *Setup) {
			s.Config.Cluster.KeyFile, s.Config.Cluster.KeyCredential = "", "cluster-key"
			t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
		},
	} {
		s := stopped(t, "n4")
		spoil(&s)
		if err := s.join(t, token); err == nil || !strings.Contains(err.Error(), "before this node joins") {
			t.Errorf("%s: %v", name, err)
		}
	}
	check(t, stopped(t, "n4").join(t, token)) // it was not spent
}

// TestJoinNeedsAnEmptyNode: a state of its own is not thrown away, nor is a token
// for it spent.
func TestJoinNeedsAnEmptyNode(t *testing.T) {
	f := found1(t)
	token := f.token(f.addr)
	own := stopped(t, "n2")
	check(t, os.MkdirAll(RaftDir(own.Config.DataDir), 0o700))
	if err := own.join(t, token); err == nil || !strings.Contains(err.Error(), "starts empty") {
		t.Errorf("with a state: %v", err)
	}
	member := stopped(t, "n2")
	member.init(t)
	if err := member.join(t, token); err == nil || !strings.Contains(err.Error(), "is node n2 of cluster") {
		t.Errorf("as a member of another: %v", err)
	}
	unreachable := stopped(t, "n2")
	unreachable.Config.Cluster.Advertise = ""
	if err := unreachable.join(t, token); err == nil || !strings.Contains(err.Error(), "cluster.advertise") {
		t.Errorf("nobody can reach it: %v", err)
	}
	check(t, stopped(t, "n2").join(t, token))
}

// TestJoinAfterACrash: a join that broke off before its last file leaves no member.
// The cluster does not take the same disk twice, whatever token it has; an empty
// one under the same name it does, once the node was removed.
func TestJoinAfterACrash(t *testing.T) {
	f := found1(t)
	s := stopped(t, "n2")
	check(t, s.join(t, f.token(f.addr)))
	check(t, os.Remove(s.file(infoName)))
	if _, err := Open(s.Config.DataDir); !errors.Is(err, ErrNone) {
		t.Fatalf("a member without its last file: %v", err)
	}
	if err := s.join(t, f.token(f.addr)); code(err) != "node_exists" {
		t.Errorf("again: %v", err)
	}
	f.remove("n2")
	if err := s.join(t, f.token(f.addr)); code(err) != "receiver_known" {
		t.Errorf("with the old disk: %v", err)
	}
	check(t, os.RemoveAll(s.Config.DataDir)) // the key stays: it is the same
	check(t, s.join(t, f.token(f.addr)))
	if n, ok := f.raft.State().Node("n2"); !ok || n.Incarnation != 2 {
		t.Errorf("%+v", n)
	}
	private(t, s)
}
