// Package queue lets requests wait in a fair order for what a limit holds back.
//
// Enter runs the caller's attempt at once when nobody with the same right waits
// in its way, else when its turn comes: a pass over the waiting, best first,
// after every Kick. Attempts never run at the same time.
//
// Guaranteed: between keys the order is fair (each key's turn comes once before
// another's comes twice), within a key it is the order of arrival; a higher
// priority goes first, but waiting raises it by one level per Config.AgeStep, so
// nobody starves; a waiter that its own scope holds back does not hold back
// others; one that is overtaken for longer than Config.Patience is not overtaken
// any more by those who need the same scope. The queue is bounded; when it is
// full, the key with the most waiters gives way. An attempt that was admitted is
// always reported as such, even when the context ended in the same moment.
//
// The queue has no goroutines but a timer; a waiter waits in its caller's.
//
// Not guaranteed: an order between a Kick that has not run yet and an arrival at
// a scope that nobody waits for.
package queue
