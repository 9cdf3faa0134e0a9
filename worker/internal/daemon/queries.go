package daemon

import (
	"bufio"
	"net/http"
	"strconv"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books"
	"github.com/bulkhead-ai/bulkhead/worker/internal/logbook"

	"go.uber.org/zap"
)

// maxLogLines bounds one answer of the query socket.
const maxLogLines = 1_000_000

// newQueries serves the tenant's logbook on the query socket, which only the
// supervisor can reach: GET /logs with the filter as query parameters answers
// canonical receipts, newest first, one a line; before=SEQ goes on after a page
// that ended with that receipt.
func newQueries(b *books.Books, log *zap.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /logs", func(w http.ResponseWriter, r *http.Request) {
		f, err := parseFilter(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		out := bufio.NewWriterSize(w, 64<<10)
		err = b.Query(r.Context(), f, func(line []byte) error {
			if _, err := out.Write(line); err != nil {
				return err
			}
			return out.WriteByte('\n')
		})
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			log.Warn("query logbook", zap.Error(err))
			// Cut the answer: a short list must not look like a whole one.
			panic(http.ErrAbortHandler)
		}
	})
	return mux
}

func parseFilter(r *http.Request) (logbook.Filter, error) {
	q := r.URL.Query()
	f := logbook.Filter{
		RequestID: bulkhead.RequestID(q.Get("request")), Project: q.Get("project"), Env: q.Get("env"),
		Account: q.Get("account"), Key: bulkhead.KeyID(q.Get("key")), User: q.Get("user"),
		Model: q.Get("model"), Outcome: bulkhead.Outcome(q.Get("outcome")), Limit: maxLogLines,
	}
	var err error
	if f.From, err = parseTime(q.Get("from")); err != nil {
		return f, err
	}
	if f.To, err = parseTime(q.Get("to")); err != nil {
		return f, err
	}
	if s := q.Get("before"); s != "" {
		if f.Before, err = strconv.ParseUint(s, 10, 64); err != nil {
			return f, bulkhead.E(bulkhead.InvalidRequest, "invalid_before", "before must be a sequence number")
		}
	}
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxLogLines {
			return f, bulkhead.E(bulkhead.InvalidRequest, "invalid_limit", "limit must be 1 to 1000000")
		}
		f.Limit = n
	}
	return f, nil
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339Nano, s)
}
