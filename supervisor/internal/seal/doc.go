// Package seal keeps the secrets of the cluster state unreadable to whoever has
// only the state: a Raft log, a snapshot or a backup.
//
// It holds the cluster key, which lives outside Raft, and does two things with
// it. It wraps the data key of each tenant (AES-256-GCM; the additional data
// names purpose, cluster and tenant). And it opens provider credentials that
// the command line sealed to the cluster's public key (HPKE, RFC 9180, with the
// hybrid KEM ML-KEM-768 + X25519, HKDF-SHA256 and AES-256-GCM), so that a
// credential is in clear on the operator's machine and in the tenant's worker,
// and nowhere between.
//
// Guaranteed: a wrapped key or a sealed credential that was changed, or moved
// to another tenant, provider or cluster, does not open. An empty, short or
// trivially weak cluster key is refused, and so is a key file that others may
// read.
//
// Not guaranteed: sealing does not authenticate the sealer, since the public
// key is public; the admin API decides who may apply. The cluster key is in the
// memory of the supervisor, and Go may leave copies of it there; whoever reads
// that memory, or is root on the node, has everything. Losing the cluster key
// loses every tenant's log.
package seal
