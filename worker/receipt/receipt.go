package receipt

import "github.com/bulkhead-ai/bulkhead"

// Receipt is the record of one attempt of a request, and a line of the tenant's
// bill and log. Its identity is (Tenant, Seq); Seq is the number of its record
// in the tenant's journal, so receipts have gaps in Seq but never repeat one.
//
// Exactly one receipt of a request has Final set: it says how the request ended
// and is counted as a request. Tokens and cost of every receipt count.
type Receipt struct {
	Tenant  bulkhead.TenantID  `json:"tenant"`
	Seq     uint64             `json:"seq"`
	Epoch   bulkhead.Epoch     `json:"epoch"`
	Request bulkhead.RequestID `json:"request_id"`
	Attempt int                `json:"attempt"` // 1, 2, ...; 0 = refused before any attempt
	Final   bool               `json:"final"`
	Outcome bulkhead.Outcome   `json:"outcome"`           // of the attempt; of the request when Final
	Unknown bool               `json:"unknown,omitempty"` // a crash or cut left open whether the provider charged: Cost is 0, UpperBound says the most it can be
	Code    string             `json:"code,omitempty"`    // error code when not served
	Status  int                `json:"status"`            // HTTP status given to the client, 499 when it left

	StartedAt int64  `json:"started_at"` // Unix milliseconds, arrival at the worker
	SettledAt int64  `json:"settled_at"` // Unix milliseconds
	Day       string `json:"day"`        // YYYY-MM-DD of StartedAt in the tenant's time zone

	Project  string         `json:"project"`
	Env      string         `json:"env"`
	Account  string         `json:"service_account"`
	Key      bulkhead.KeyID `json:"key_id"`
	KeyOwner string         `json:"key_owner"`
	User     string         `json:"user,omitempty"`
	Feature  string         `json:"feature,omitempty"`

	Endpoint      string `json:"endpoint"`
	Model         string `json:"model"` // what the client named, when it is routed; else ""
	Provider      string `json:"provider,omitempty"`
	UpstreamModel string `json:"upstream_model,omitempty"`

	Usage      bulkhead.Usage `json:"usage"`
	Estimated  bool           `json:"estimated,omitempty"` // usage is the gateway's count: the provider gave none
	Suspect    bool           `json:"suspect,omitempty"`   // the provider's usage was not believable and was bounded
	Cost       bulkhead.Money `json:"cost"`
	Unpriced   bool           `json:"unpriced,omitempty"`    // no price: Cost 0 says nothing
	UpperBound bulkhead.Money `json:"upper_bound,omitempty"` // with Unknown: the reservation's cost
	Currency   string         `json:"currency,omitempty"`
	PriceBook  string         `json:"price_book,omitempty"` // name@generation

	LatencyMS int64  `json:"latency_ms"` // arrival to last byte
	QueueMS   int64  `json:"queue_ms"`
	FirstMS   int64  `json:"first_ms,omitempty"` // arrival to first byte
	Stream    bool   `json:"stream,omitempty"`
	Clamped   int64  `json:"clamped,omitempty"` // output ceiling that the gateway set
	Salt      string `json:"salt"`              // 16 random bytes, hex: a witness cannot guess the leaf
}
