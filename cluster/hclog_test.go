package cluster

import (
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestRaftLogWritesToZap(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	l := newRaftLog(zap.New(core), false)
	l.Debug("hidden")
	l.With("node", "n1").Named("wal").Warn("slow", "index", uint64(7), "servers", hclog.Fmt("%+v", []int{1}), "error", errors.New("boom"), "odd")
	entries := logs.All()
	if len(entries) != 1 || entries[0].Level != zapcore.WarnLevel || entries[0].Message != "slow" {
		t.Fatalf("entries: %+v", entries)
	}
	got := entries[0].ContextMap()
	for k, want := range map[string]any{"node": "n1", "index": uint64(7), "servers": "[1]", "error": "boom", "extra": "odd"} {
		if got[k] != want {
			t.Errorf("field %s = %v (%T), want %v", k, got[k], got[k], want)
		}
	}
	l.StandardLogger(nil).Print("from a library")
	if n := logs.Len(); n != 2 {
		t.Errorf("%d entries after a line of the standard logger", n)
	}
	if l.IsDebug() || !l.IsInfo() || l.GetLevel() != hclog.Info {
		t.Error("levels do not follow the zap logger")
	}
}
