package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk/wire"
)

// Server serves an adapter over gRPC. It is safe for concurrent use as far as
// the adapter is.
type Server struct {
	wire.UnimplementedAdapterServer
	adapter provider.Adapter
}

// NewServer returns a server for the adapter; Serve does all else that a plugin
// process needs.
func NewServer(a provider.Adapter) *Server { return &Server{adapter: a} }

// Describe implements the protocol.
func (s *Server) Describe(context.Context, *wire.DescribeRequest) (*wire.Info, error) {
	return wire.FromInfo(s.adapter.Info()), nil
}

// Request implements the protocol.
func (s *Server) Request(ctx context.Context, c *wire.Call) (*wire.RequestReply, error) {
	r, err := s.adapter.Request(ctx, c.Provider())
	if err != nil {
		if e, ok := errors.AsType[*bulkhead.Error](err); ok {
			return &wire.RequestReply{Error: wire.FromError(e)}, nil
		}
		return nil, err
	}
	return wire.FromRequest(r), nil
}

// Answer implements the protocol.
func (s *Server) Answer(ctx context.Context, r *wire.AnswerRequest) (*wire.AnswerReply, error) {
	a, err := s.adapter.Answer(ctx, r.GetCall().Provider(), int(r.GetStatus()), r.GetBody())
	if err != nil {
		return nil, err
	}
	return wire.FromAnswer(a), nil
}

// Stream implements the protocol.
func (s *Server) Stream(g grpc.BidiStreamingServer[wire.StreamPart, wire.Delta]) error {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	if first.GetCall() == nil {
		return status.Error(codes.InvalidArgument, "the first message must be the call")
	}
	st, err := s.adapter.Stream(g.Context(), first.GetCall().Provider())
	if err != nil {
		return err
	}
	defer st.Close()
	for {
		part, err := g.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		d, err := st.Translate(part.GetEvents())
		if err != nil {
			return err
		}
		if err := g.Send(wire.FromDelta(&d)); err != nil {
			return err
		}
	}
}

// Respond implements the protocol.
func (s *Server) Respond(r *wire.RespondRequest, g grpc.ServerStreamingServer[wire.Chunk]) error {
	a, ok := s.adapter.(provider.Answerer)
	if !ok {
		return status.Error(codes.Unimplemented, "the adapter does not answer itself")
	}
	err := a.Respond(g.Context(), r.GetCall().Provider(), r.GetRequest().Provider(), func(status int, data []byte) error {
		return g.Send(&wire.Chunk{Status: int32(status), Data: data})
	})
	if e, ok := errors.AsType[*bulkhead.Error](err); ok {
		return g.Send(&wire.Chunk{Error: wire.FromError(e)})
	}
	return err
}

// recoverUnary and recoverStream turn a panic of the adapter into a failed call:
// other calls of the tenant run in the same process.
func recoverUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
	defer recovered(&err)
	return next(ctx, req)
}

func recoverStream(srv any, g grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer recovered(&err)
	return next(srv, g)
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = status.Error(codes.Internal, fmt.Sprintf("adapter panicked: %v", r))
	}
}
