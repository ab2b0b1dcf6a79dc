/**
 * The thread that writes the ledger, on connections of its own; `ledger-thread.ts` begins it and talks with it. It writes
 * what it is asked to write, and drains a usage log in Redis by itself.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { newId } from '../ids.ts'
import { decodeList } from '../limits/event-codec.ts'
import { openRedisUsageReader } from '../limits/redis-usage-reader.ts'
import { pause } from '../pause.ts'
import { connectPostgres, describeError, type StorageLog } from '../storage/postgres.ts'
import { connectRedis } from '../storage/redis.ts'
import { createDrain } from './drain.ts'
import { writeBatchIsolating } from './ledger.ts'
import type { FromLedgerThread, LedgerThreadData, StreamSource, ToLedgerThread } from './ledger-messages.ts'
import { ledgerOf } from './ledger-writer.ts'

interface StreamDrain {
  nudge(): void
  stop(): Promise<void>
  close(): Promise<void>
}

/** Pause after a Redis that cannot be reached, before it is tried again. */
const connectEveryMs = 1_000
/** How often it is looked whether what is told of the drain is still so. */
const stateEveryMs = 200

const port = parentPort
if (port === null) throw new Error('this is to be run as a thread')
const post = (message: FromLedgerThread): void => port.postMessage(message)

const log: StorageLog = {
  info: (fields, text) => post({ kind: 'log', level: 'info', fields, text }),
  warn: (fields, text) => post({ kind: 'log', level: 'warn', fields, text }),
  error: (fields, text) => post({ kind: 'log', level: 'error', fields, text }),
}
const { target, stream, ...pool }: LedgerThreadData = workerData
const sql = connectPostgres({ ...target, ...pool, log })
const closing = new AbortController()
let streamDrain: StreamDrain | undefined

port.on('message', (message: ToLedgerThread) => {
  switch (message.kind) {
    case 'write':
      void write(message.id, message.events)
      return
    case 'nudge':
      streamDrain?.nudge()
      return
    case 'stop':
      void stop()
      return
    case 'close':
      void close()
  }
})
post({ kind: 'ready' })
if (stream !== undefined) void drainStream(stream)

async function write(id: number, events: Uint8Array<ArrayBuffer>): Promise<void> {
  try {
    const json = Buffer.from(events.buffer, events.byteOffset, events.length).toString()
    post({ kind: 'written', id, result: await writeBatchIsolating(sql, decodeList(json)) })
  } catch (error) {
    post({ kind: 'failed', id, problem: describeError(error) })
  }
}

async function stop(): Promise<void> {
  closing.abort()
  await streamDrain?.stop()
  post({ kind: 'stopped' })
}

async function close(): Promise<void> {
  closing.abort()
  await streamDrain?.close()
  await sql.end(2_000)
  port?.close()
}

/** Tries until Redis can be reached: what it is asked to write does not wait for that. */
async function drainStream(source: StreamSource): Promise<void> {
  while (streamDrain === undefined && !closing.signal.aborted) {
    try {
      streamDrain = await startStreamDrain(source)
    } catch (error) {
      post({ kind: 'state', failing: describeError(error), isConnected: false })
      await pause(connectEveryMs, closing.signal)
    }
  }
}

async function startStreamDrain({ url, commandTimeoutMs, instanceId }: StreamSource): Promise<StreamDrain> {
  const redis = await connectRedis({ url, log, commandTimeoutMs })
  const reader = { redis, instanceId: `${instanceId}-${newId()}`, log }
  const usageLog = await openRedisUsageReader(reader).catch((error: unknown) => {
    redis.disconnect()
    throw error
  })
  const drain = createDrain({
    usageLog,
    ledger: ledgerOf(sql),
    log,
    sweepEveryMs: false,
    onBatch: ({ written, duplicates, quarantined }) => {
      post({ kind: 'drained', drained: { written, duplicates, quarantined, atMs: Date.now() } })
    },
    trace: (traceparents, startMs, endMs, batchSize) => {
      if (traceparents.length > 0) post({ kind: 'traced', traceparents, startMs, endMs, batchSize })
    },
  })
  let told = ''
  const tell = (): void => {
    const { failing } = drain.state()
    const isConnected = redis.status === 'ready'
    if (told === `${isConnected} ${failing}`) return
    told = `${isConnected} ${failing}`
    post({ kind: 'state', failing, isConnected })
  }
  tell()
  const telling = setInterval(tell, stateEveryMs)
  drain.start()
  return {
    nudge: () => usageLog.nudge(),
    stop: () => drain.stop(),
    async close() {
      clearInterval(telling)
      await usageLog.close()
      redis.disconnect()
    },
  }
}
