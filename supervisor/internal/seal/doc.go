// Package seal keeps the secrets of the cluster state unreadable to whoever has
// only the state: a Raft log, a snapshot or a backup.
//
// It holds the cluster key, which lives outside Raft, and does three things with
// it. It wraps the data key of each tenant (AES-256-GCM twice: inside under a key
// share of the tenant, which is outside Raft too, outside under the cluster key;
// the additional data names purpose, cluster, tenant and share). It opens provider
// credentials that the command line sealed to the cluster's public key (HPKE, RFC
// 9180, with the hybrid KEM ML-KEM-768 + X25519, HKDF-SHA256 and AES-256-GCM), so
// that a credential is in clear on the operator's machine and in the tenant's
// worker, and nowhere between. And it derives the key that signs the audit trail.
//
// Guaranteed: a wrapped key or a sealed credential that was changed, or moved
// to another tenant, provider or cluster, does not open. A wrapped key does not
// open without its share, whoever has the cluster key. An empty, short or
// trivially weak cluster key is refused, and so is a key file that others may
// read.
//
// Not guaranteed: sealing does not authenticate the sealer, since the public
// key is public; the admin API decides who may apply. The cluster key is in the
// memory of the supervisor, and Go may leave copies of it there; whoever reads
// that memory, or is root on the node, has everything. Losing the cluster key
// loses every tenant's log; losing all copies of a tenant's share loses that
// tenant's. Whoever has the cluster key can sign as the audit trail does.
package seal
