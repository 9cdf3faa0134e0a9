// Package control is the contract between a supervisor and the worker process
// of one tenant: the file descriptors the worker is born with, the messages on
// its control socket, the policy it enforces and the head of a forwarded
// request.
//
// A worker is born with nothing but these descriptors:
//
//	0,1  /dev/null
//	2    log pipe: JSON lines, read by the supervisor
//	3    control socket (stream socketpair): frames of this package
//	4    request listener (unix socket made by the supervisor): HTTP/1.1
//	5    query listener (unix socket): logs; never reachable from the data plane
//	6    broker socket (seqpacket socketpair): asks for connected descriptors
//	7    replication socket (stream socketpair): what the journal writes, for the
//	     copies on other nodes; silent unless Serve says that there are any
//	8    lease page (one page of shared memory, read only): 8 bytes, native byte
//	     order, the CLOCK_BOOTTIME in nanoseconds until which this node may serve
//
// The control socket is a state machine on both sides; a message that is not
// allowed in the present state ends the worker:
//
//	supervisor -> worker   Start, Serve, Policy*, Ack*, Drain
//	worker -> supervisor   Hello, Ready, PolicyApplied*, Receipts*, Drained | Fatal
//
//	Start ------> lock down ------------------------> Hello(public key, layers)
//	Serve(epoch)-> open the journal, write the epoch record, resolve open
//	               intents -------------------------> Ready
//	Drain ------> finish what runs, close, ---------> Drained, exit 0
//	end of file on the control socket: finish within 10 s, exit 0
//
// The supervisor treats everything that a worker sends as hostile input: sizes
// are bounded, receipts are verified, descriptors only ever flow to the worker.
package control
