import { isObject } from '../is-object.ts'
import type { PostgresTarget } from '../storage/postgres.ts'
import type { Figures } from '../telemetry/merge-figures.ts'
import type { WorkersView } from './shared-view.ts'

/** What a worker is given to start with. */
export interface Seat {
  /** From 1; of one process at a time, so that it names a folder too. */
  readonly slot: number
  /** The port that all of them share, never 0. */
  readonly port: number
  /** The embedded Postgres, which the primary runs; undefined where DATABASE_URL names another one. */
  readonly database: PostgresTarget | undefined
}

/** From the primary to a worker. */
export type ToWorker =
  | { readonly kind: 'start'; readonly seat: Seat; readonly view: WorkersView }
  | { readonly kind: 'view'; readonly view: WorkersView }
  /** Another one serves in its place: end calls, however long they take, and leave. */
  | { readonly kind: 'retire' }
  /** Everybody leaves: end calls within the drain window, and leave. */
  | { readonly kind: 'leave' }
  /** Say your figures. */
  | { readonly kind: 'ask'; readonly id: number }
  /** The metrics page of all, which this worker asked for. */
  | { readonly kind: 'page'; readonly id: number; readonly text: string }

/** From a worker to the primary. */
export type ToPrimary =
  /** It listens to messages; the answer is "start". */
  | { readonly kind: 'hello' }
  | { readonly kind: 'serving'; readonly address: string }
  /** It cannot start, and ends. */
  | { readonly kind: 'failed'; readonly message: string }
  /** Somebody asked it alone to leave. */
  | { readonly kind: 'leaving' }
  | { readonly kind: 'figures'; readonly id: number; readonly figures: Figures }
  /** Its last figures: it does nothing more. */
  | { readonly kind: 'farewell'; readonly figures: Figures }
  | { readonly kind: 'gather'; readonly id: number }

const toWorker: ReadonlySet<unknown> = new Set(['start', 'view', 'retire', 'leave', 'ask', 'page'])
const toPrimary: ReadonlySet<unknown> = new Set([
  'hello',
  'serving',
  'failed',
  'leaving',
  'figures',
  'farewell',
  'gather',
])

/** Both ends run the same code, so the kind says it all. */
export function isToWorker(message: unknown): message is ToWorker {
  return isObject(message) && toWorker.has(message.kind)
}

/** The same in the other direction. */
export function isToPrimary(message: unknown): message is ToPrimary {
  return isObject(message) && toPrimary.has(message.kind)
}
