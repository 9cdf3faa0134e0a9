// Package spawn makes the processes of tenants. It has two halves in one
// binary: the supervisor's side ([Start], [Spawner], [Process]) and the spawner
// ([Main]), a small process that the supervisor starts first and that alone
// clones others: making a user namespace copies the page tables of whoever asks
// for it, which costs a supervisor with a large heap 40 ms each time.
//
// What is guaranteed: a child has the descriptors named in its request and no
// other; where the host allows it, it is born in own user, mount, pid, network,
// ipc, uts and cgroup namespaces, as its tenant's own uid when the supervisor is
// root; it has a cgroup of its own below the supervisor's. A tenant has at most
// one worker; its plugins end with it. When the supervisor ends, however it
// ends, so does the spawner, after it has killed every child with all its
// descendants and removed their cgroups and socket directories.
//
// What is not: if supervisor and spawner are killed in the same instant, the
// processes still end with the spawner, but empty cgroups stay until the next
// start on this host sweeps them. The rest of the confinement is applied by the
// child to itself; this package only makes it possible.
package spawn
