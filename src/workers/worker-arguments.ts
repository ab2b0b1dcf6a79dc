/**
 * Ceiling of what a worker keeps for new objects, in MiB and per half. Node's own lets a worker grow by 100 MiB and more, and
 * what the command line says is meant for one process.
 */
const newObjects = '--max-semi-space-size'
const newObjectsMiB = 8

/** Arguments of Node for a worker, from those of the process that starts it. */
export function workerArguments(own: readonly string[]): string[] {
  return [...own.filter((argument) => !argument.startsWith(`${newObjects}=`)), `${newObjects}=${newObjectsMiB}`]
}
