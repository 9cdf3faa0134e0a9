package chat

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
)

type openAIModel struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

type anthropicModel struct {
	Type        string `json:"type"`
	ID          string `json:"id"`
	DisplayName string `json:"display_name"`
	CreatedAt   string `json:"created_at"`
}

// serveModels answers GET models and models/ID with what the key may call. It
// costs nothing and changes nothing, so it is not metered and leaves no receipt.
func (q *request) serveModels() {
	if err := q.identify(); err != nil {
		q.writeError(bulkhead.AsError(err))
		return
	}
	if err := q.view.ground(q.key).admits(q.bearer()); err != nil {
		q.writeError(bulkhead.AsError(err))
		return
	}
	anthropic := q.r.Header.Get("Anthropic-Version") != ""
	if anthropic {
		q.shape = bulkhead.Anthropic
	}
	models := q.view.models(q.key)
	id, single := strings.CutPrefix(string(q.endpoint), "models/")
	switch {
	case single:
		for _, m := range models {
			if m == id {
				q.writeJSON(model(m, anthropic))
				return
			}
		}
		e := bulkhead.E(bulkhead.NotFound, "model_not_found", "The model does not exist or no route leads to it.")
		e.Param = "model"
		q.writeError(e)
	case q.endpoint != "models":
		q.writeError(bulkhead.E(bulkhead.NotFound, "not_found", "There is no such endpoint."))
	case anthropic:
		list := struct {
			Data    []any  `json:"data"`
			FirstID string `json:"first_id"`
			LastID  string `json:"last_id"`
			HasMore bool   `json:"has_more"`
		}{Data: modelList(models, true)}
		if len(models) > 0 {
			list.FirstID, list.LastID = models[0], models[len(models)-1]
		}
		q.writeJSON(list)
	default:
		q.writeJSON(struct {
			Object string `json:"object"`
			Data   []any  `json:"data"`
		}{"list", modelList(models, false)})
	}
}

func modelList(names []string, anthropic bool) []any {
	out := make([]any, len(names))
	for i, m := range names {
		out[i] = model(m, anthropic)
	}
	return out
}

func model(name string, anthropic bool) any {
	if anthropic {
		return anthropicModel{Type: "model", ID: name, DisplayName: name, CreatedAt: "1970-01-01T00:00:00Z"}
	}
	return openAIModel{ID: name, Object: "model", OwnedBy: "bulkhead"}
}

func (q *request) writeJSON(v any) {
	body, err := json.Marshal(v)
	if err != nil {
		q.writeError(bulkhead.AsError(err))
		return
	}
	h := q.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	q.w.WriteHeader(http.StatusOK)
	q.w.Write(body)
}
