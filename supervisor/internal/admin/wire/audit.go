package wire

// AuditEnd is the last line of the stream that verifies the audit trail. A stream
// without it was cut off and proves nothing.
type AuditEnd struct {
	End  bool `json:"end"` // always true: no log's line has it
	OK   bool `json:"ok"`  // all of it holds
	Logs int  `json:"logs"`
}

// AuditKey is the key that verifies checkpoints and exports of the audit trail.
type AuditKey struct {
	Key string `json:"key" doc:"verifier key of signed notes: NAME+HASH+BASE64"`
}
