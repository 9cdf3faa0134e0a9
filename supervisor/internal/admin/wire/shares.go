package wire

// SaveShares asks for an escrow file of the tenants' key shares.
type SaveShares struct {
	Recipient string `json:"recipient" doc:"age public key that the file is encrypted to" minLength:"1" maxLength:"4096"`
}

// RestoreShares is one batch of the key shares of an escrow file.
type RestoreShares struct {
	Sealed []byte `json:"sealed" doc:"the batch, sealed to the sealing key of the cluster"`
}

// SharesRestored tells what became of each share of a batch.
type SharesRestored struct {
	Shares []RestoredShare `json:"shares"`
}

// RestoredShare is one share of a restore.
type RestoredShare struct {
	Tenant string `json:"tenant"`
	ID     string `json:"id" doc:"SHA-256 of the share"`
	Error  string `json:"error,omitempty" doc:"why it was not restored; empty: a majority of the members has it"`
}
