import cluster, { type Worker } from 'node:cluster'
import { isObject } from '../is-object.ts'

/**
 * Gives connections that were handed to a worker which died before it took them to another one.
 *
 * node:cluster hands a connection on and waits for the worker's word that it took it. A worker that was killed never says
 * so, and Node (24, lib/internal/cluster/round_robin_handle.js) then holds the connection for ever: the first caller after
 * a crash would wait for its deadline. Here the primary hears the word "not taken" in place of the dead worker, the same
 * that one that shuts down says, and hands the connection on again. Where no other worker is left it is closed.
 */
export function passOnUntaken(worker: Worker): void {
  const { process } = worker
  const untaken = new Map<unknown, unknown>()
  const send = process.send.bind(process)
  Object.assign(process, {
    send(...said: Parameters<typeof send>): boolean {
      const [message, handle] = said
      if (isObject(message) && message.act === 'newconn') untaken.set(message.seq, handle)
      return send(...said)
    },
  })
  process.on('internalMessage', (message: unknown) => {
    if (isObject(message)) untaken.delete(message.ack)
  })
  worker.once('exit', () => {
    // Takes it out of the round at once. Node's own "disconnect" does not come while a connection is untaken.
    worker.disconnect()
    const isLast = Object.keys(cluster.workers ?? {}).length === 0
    for (const [ack, handle] of untaken) {
      if (!isLast) process.emit('internalMessage', { cmd: 'NODE_CLUSTER', ack, accepted: false })
      else if (hasClose(handle)) handle.close()
    }
    untaken.clear()
  })
}

function hasClose(handle: unknown): handle is { close(): void } {
  return typeof handle === 'object' && handle !== null && 'close' in handle && typeof handle.close === 'function'
}
