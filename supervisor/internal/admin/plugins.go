package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/danielgtaylor/huma/v2"
)

// maxPlugin bounds a plugin binary in bytes.
const maxPlugin = 256 << 20

type pluginsOutput struct{ Body wire.Plugins }

type pluginOutput struct{ Body wire.RegisteredPlugin }

type pluginInput struct {
	Writing
	Name string `path:"name" maxLength:"63"`
}

// uploadInput takes the body as a stream: a binary is too large to be held in
// memory.
type uploadInput struct {
	Writing
	Name string `path:"name" maxLength:"63"`
	body io.Reader
}

// Resolve implements huma.Resolver.
func (in *uploadInput) Resolve(ctx huma.Context) []error {
	if err := ctx.SetReadDeadline(time.Now().Add(10 * time.Minute)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return []error{err}
	}
	in.body = ctx.BodyReader()
	return in.Writing.Resolve(ctx)
}

func (a *API) pluginRoutes() {
	guarded(a, operation("list-plugins", http.MethodGet, "/plugins", "List registered adapters"), ofPlatform[struct{}]("plugins"), a.listPlugins)
	upload := operation("add-plugin", http.MethodPut, "/plugins/{name}", "Upload an adapter's binary and register it by its SHA-256")
	upload.RequestBody = &huma.RequestBody{
		Required:    true,
		Description: fmt.Sprintf("a static Linux binary of at most %d bytes", maxPlugin),
		Content:     map[string]*huma.MediaType{"application/octet-stream": {}},
	}
	guarded(a, upload, func(_ context.Context, in *uploadInput) (matter, error) { return a.ofPlugin(in.Name), nil }, a.addPlugin)
	guarded(a, operation("remove-plugin", http.MethodDelete, "/plugins/{name}", "Remove an adapter that no provider uses"),
		func(_ context.Context, in *pluginInput) (matter, error) { return a.ofPlugin(in.Name), nil }, a.removePlugin)
}

// ofPlugin is the matter of one plugin. What an upload registers is known, and
// noted, when it is here.
func (a *API) ofPlugin(name string) matter {
	m := matter{object: string(manifest.KindPlugin) + " " + name}
	if digest := a.digestOf(manifest.Ref{Kind: manifest.KindPlugin, Name: name}); digest != "" {
		m.before = map[string]string{"sha256": digest}
	}
	return m
}

func (a *API) listPlugins(context.Context, *struct{}) (*pluginsOutput, error) {
	out := &pluginsOutput{wire.Plugins{Plugins: []wire.RegisteredPlugin{}}}
	for _, o := range a.cfg.Cluster.State().Objects(manifest.KindPlugin) {
		out.Body.Plugins = append(out.Body.Plugins, wire.RegisteredPlugin{Name: o.Name, SHA256: o.PluginSpec.SHA256, Size: o.PluginSpec.Size})
	}
	return out, nil
}

// addPlugin stores the binary before it names it in the state: a worker that
// learns of the plugin must find it.
func (a *API) addPlugin(ctx context.Context, in *uploadInput) (*pluginOutput, error) {
	if !bulkhead.ValidName(in.Name) {
		return nil, invalid("name", "must be 1 to 63 of a-z, 0-9 and inner hyphens")
	}
	p, err := storePlugin(a.cfg.PluginDir, in.body)
	if err != nil {
		return nil, a.fail("store plugin", err)
	}
	ref := manifest.Ref{Kind: manifest.KindPlugin, Name: in.Name}
	cmd := &command.Apply{Upsert: []manifest.Object{{Ref: ref, PluginSpec: &p}}}
	old := a.digestOf(ref)
	noteAfter(ctx, p)
	if _, err := a.propose(ctx, "add plugin", in.op(), cmd, a.cfg.Cluster.State().Tenants()...); err != nil {
		return nil, err
	}
	a.sweep(old)
	return &pluginOutput{wire.RegisteredPlugin{Name: in.Name, SHA256: p.SHA256, Size: p.Size}}, nil
}

func (a *API) removePlugin(ctx context.Context, in *pluginInput) (*struct{}, error) {
	ref := manifest.Ref{Kind: manifest.KindPlugin, Name: in.Name}
	old := a.digestOf(ref)
	if _, err := a.propose(ctx, "remove plugin", in.op(), &command.Apply{Delete: []manifest.Ref{ref}}, a.cfg.Cluster.State().Tenants()...); err != nil {
		return nil, err
	}
	a.sweep(old)
	return nil, nil
}

func (a *API) digestOf(ref manifest.Ref) string {
	if o, _, ok := a.cfg.Cluster.State().Object(ref); ok && o.PluginSpec != nil {
		return o.PluginSpec.SHA256
	}
	return ""
}
