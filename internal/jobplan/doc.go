// Package jobplan decides what happens to the executions of jobs. It is pure: the time, the stored documents and what
// the engine reports are arguments, and the decisions are return values. Package reconcile stores them, carries them
// out and reports them.
//
//   - Schedule decides which scheduled execution starts, and what happens to scheduled times that were missed.
//   - Events decides how many executions start for what event sources tell.
//   - Advance decides how an execution continues: which replicas start, when a failed one is retried, and when and how
//     the execution ends.
package jobplan
