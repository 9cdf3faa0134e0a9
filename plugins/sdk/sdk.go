// Package sdk is what the author of a provider adapter imports to make a plugin
// of it:
//
//	func main() { sdk.Serve(myadapter.New()) }
//
// It guarantees: the plugin speaks the handshake and protocol that package host
// expects, over a unix socket with mutual TLS; a panic of the adapter fails the
// call and not the process; and the process ends when its worker is gone, even
// where nobody kills it. A plugin has no network, no files and no secrets: it
// translates (see package provider). What it writes to stderr ends up, capped,
// in the worker's log; stdout is not for it to use.
package sdk

import (
	"context"
	"io"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk/wire"
)

// PluginName is the name under which go-plugin dispenses the adapter.
const PluginName = "adapter"

// MaxMessage is the largest message in bytes between worker and plugin: a body
// or a batch of events with what belongs to it.
const MaxMessage = 64 << 20

// Handshake is what both sides must agree upon; the cookie keeps a plugin that
// somebody starts by hand from waiting for nothing.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion: 1, MagicCookieKey: "BULKHEAD_PROVIDER", MagicCookieValue: "a2d1f7b0-translate-only",
	}
}

// Serve serves the adapter until the worker ends it or is gone, and does not
// return.
func Serve(a provider.Adapter) {
	endWithWorker()
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: Handshake(),
		Plugins:         plugin.PluginSet{PluginName: &servedPlugin{adapter: a}},
		Logger:          hclog.New(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off}),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts,
				grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage),
				grpc.ChainUnaryInterceptor(recoverUnary), grpc.ChainStreamInterceptor(recoverStream))...)
		},
	})
}

// servedPlugin registers the adapter's service with go-plugin.
type servedPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	adapter provider.Adapter
}

func (p *servedPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	wire.RegisterAdapterServer(s, NewServer(p.adapter))
	return nil
}

func (p *servedPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, io.ErrUnexpectedEOF // a plugin is never a client
}
