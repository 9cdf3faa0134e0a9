package cluster

import (
	"fmt"
	"io"
	"log"
	"slices"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// raftLog lets raft write to a zap logger. Levels are those of the zap logger;
// SetLevel does nothing.
type raftLog struct {
	log     *zap.Logger
	name    string
	implied []any
	alone   bool // the node is the only voter
}

var _ hclog.Logger = (*raftLog)(nil)

func newRaftLog(l *zap.Logger, alone bool) *raftLog {
	return &raftLog{log: l.WithOptions(zap.WithCaller(false)), alone: alone}
}

// routine reports whether raft warns of what every start of a single voter does.
func (l *raftLog) routine(msg string) bool {
	return l.alone && (msg == "heartbeat timeout reached, starting election" || msg == "skipping application of old log")
}

func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	if level == hclog.Warn && l.routine(msg) {
		level = hclog.Debug
	}
	if ce := l.log.Check(zapLevel(level), msg); ce != nil {
		ce.Write(fields(args)...)
	}
}

func (l *raftLog) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLog) IsTrace() bool { return false }
func (l *raftLog) IsDebug() bool { return l.log.Core().Enabled(zapcore.DebugLevel) }
func (l *raftLog) IsInfo() bool  { return l.log.Core().Enabled(zapcore.InfoLevel) }
func (l *raftLog) IsWarn() bool  { return l.log.Core().Enabled(zapcore.WarnLevel) }
func (l *raftLog) IsError() bool { return l.log.Core().Enabled(zapcore.ErrorLevel) }

func (l *raftLog) ImpliedArgs() []any { return l.implied }

func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{l.log.With(fields(args)...), l.name, slices.Concat(l.implied, args), l.alone}
}

func (l *raftLog) Name() string { return l.name }

func (l *raftLog) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

func (l *raftLog) ResetNamed(name string) hclog.Logger {
	return &raftLog{l.log, name, l.implied, l.alone}
}

func (l *raftLog) SetLevel(hclog.Level) {}

func (l *raftLog) GetLevel() hclog.Level {
	if l.IsDebug() {
		return hclog.Debug
	}
	return hclog.Info
}

func (l *raftLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return zap.NewStdLog(l.log)
}

func (l *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return zap.NewStdLog(l.log).Writer()
}

// zapLevel maps levels; raft's information is detail for an operator of the
// gateway, its warnings and errors are not.
func zapLevel(level hclog.Level) zapcore.Level {
	switch level {
	case hclog.Error:
		return zapcore.ErrorLevel
	case hclog.Warn:
		return zapcore.WarnLevel
	case hclog.Info:
		return zapcore.InfoLevel
	}
	return zapcore.DebugLevel
}

// fields turns raft's alternating keys and values into zap's. Values are
// rendered to text: raft passes whole structures.
func fields(args []any) []zap.Field {
	out := make([]zap.Field, 0, (len(args)+1)/2)
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) {
			return append(out, zap.String("extra", fmt.Sprint(args[i])))
		}
		out = append(out, field(fmt.Sprint(args[i]), args[i+1]))
	}
	return out
}

func field(key string, val any) zap.Field {
	switch v := val.(type) {
	case hclog.Format:
		if len(v) > 0 {
			return zap.String(key, fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...))
		}
	case error:
		return zap.NamedError(key, v)
	case uint64:
		return zap.Uint64(key, v)
	case int:
		return zap.Int(key, v)
	}
	return zap.String(key, fmt.Sprint(val))
}
