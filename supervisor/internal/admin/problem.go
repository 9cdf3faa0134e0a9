package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

// fail turns an error into a problem document. Texts of *bulkhead.Error are made
// for clients; everything else is logged here and answered without detail.
func (a *API) fail(what string, err error) error {
	if errors.Is(err, cluster.ErrUnknownOutcome) {
		a.cfg.Log.Warn(what, zap.Error(err))
		return huma.Error504GatewayTimeout("it is not known whether the change was applied; repeat it with the same Idempotency-Key")
	}
	if errors.Is(err, context.Canceled) {
		return huma.NewError(499, "the client went away")
	}
	e := bulkhead.AsError(err)
	status := e.Status()
	if status >= http.StatusInternalServerError {
		a.cfg.Log.Error(what, zap.Error(err))
	}
	if e.Kind == bulkhead.InvalidRequest {
		status = http.StatusUnprocessableEntity
	}
	var details []error
	if e.Param != "" {
		details = append(details, &huma.ErrorDetail{Location: e.Param, Message: e.Message})
	}
	problem := coded(status, e.Code, e.Message, details...)
	if e.RetryAfter <= 0 {
		return problem
	}
	seconds := strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10)
	return huma.ErrorWithHeaders(problem, http.Header{"Retry-After": {seconds}})
}

// refuse answers 422 with one detail per problem, "REF: FIELD" as its location.
func refuse(problems []manifest.Problem) error {
	details := make([]error, len(problems))
	for i, p := range problems {
		details[i] = &huma.ErrorDetail{Location: p.Ref.String() + ": " + p.Field, Message: p.Reason}
	}
	return huma.Error422UnprocessableEntity("nothing was applied: the desired state would be wrong", details...)
}

func invalid(param, reason string) error {
	return huma.Error422UnprocessableEntity(param+" "+reason, &huma.ErrorDetail{Location: param, Message: reason})
}

// writeProblem answers outside of a route.
func writeProblem(w http.ResponseWriter, status int, detail string) {
	body, err := json.Marshal(&huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail})
	if err != nil {
		panic("internal error: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// problem is a problem document with a code for programs.
type problem struct {
	*huma.ErrorModel
	Code string `json:"code,omitempty"`
}

var _ huma.StatusError = (*problem)(nil)

// coded is an error that is answered with a code.
func coded(status int, code, detail string, details ...error) error {
	m := &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail}
	for _, d := range details {
		m.Add(d)
	}
	return &problem{m, code}
}

// codeOf is the code that an error is answered with, or "".
func codeOf(err error) string {
	var p *problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// withoutValues leaves out of a refusal what was sent: a body that was not
// understood may hold a secret, and an answer ends up in logs and tickets.
func withoutValues(_ huma.Context, _ string, v any) (any, error) {
	if m, ok := v.(*huma.ErrorModel); ok {
		for _, e := range m.Errors {
			e.Value = nil
		}
	}
	return v, nil
}
