/** The thread that writes the ledger, on connections of its own; `ledger-thread.ts` begins it and talks with it. */
import { parentPort, workerData } from 'node:worker_threads'
import { type EventFields, eventOf } from '../limits/event-codec.ts'
import { connectPostgres, describeError, type StorageLog } from '../storage/postgres.ts'
import { writeBatchIsolating } from './ledger.ts'
import type { FromLedgerThread, LedgerThreadData, ToLedgerThread } from './ledger-messages.ts'

const port = parentPort
if (port === null) throw new Error('this is to be run as a thread')
const post = (message: FromLedgerThread): void => port.postMessage(message)

const log: StorageLog = {
  info: (fields, text) => post({ kind: 'log', level: 'info', fields, text }),
  warn: (fields, text) => post({ kind: 'log', level: 'warn', fields, text }),
  error: (fields, text) => post({ kind: 'log', level: 'error', fields, text }),
}
const { target, ...pool }: LedgerThreadData = workerData
const sql = connectPostgres({ ...target, ...pool, log })

async function write(id: number, json: string): Promise<void> {
  try {
    const fields: readonly EventFields[] = JSON.parse(json)
    post({ kind: 'written', id, result: await writeBatchIsolating(sql, fields.map(eventOf)) })
  } catch (error) {
    post({ kind: 'failed', id, problem: describeError(error) })
  }
}

port.on('message', (message: ToLedgerThread) => {
  if (message.kind === 'write') void write(message.id, message.events)
  else void sql.end(2_000).finally(() => port.close())
})
post({ kind: 'ready' })
