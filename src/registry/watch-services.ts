/**
 * A watch of the registry: a **snapshot**, the services at one version of the control plane; **deltas**, the changes after a
 * version; and **bookmarks**, which say that there was nothing more up to a version.
 *
 * A version is a position in the log of changes. A watch that goes on from one reads the log until it meets what the feed
 * keeps in memory, and follows the feed from there.
 */
import { fromJson, type MessageInitShape } from '@bufbuild/protobuf'
import { durationMs, timestampFromMs } from '@bufbuild/protobuf/wkt'
import {
  WatchResponse_Kind as Kind,
  type Service,
  ServiceSchema,
  type WatchRequest,
  type WatchResponse,
  type WatchResponseSchema,
} from '../../gen/marketplace/v1/registry_pb.ts'
import type { Call } from '../call.ts'
import type { ChangeFeed } from '../control/change-feed.ts'
import { type LoggedChange, type LogPage, selectChanges } from '../control/change-log.ts'
import { TollgateError } from '../errors.ts'
import { storing } from '../storage/constraint-error.ts'
import type { Sql } from '../storage/postgres.ts'
import { shownMessage } from './service-access.ts'
import { serviceMessage } from './service-message.ts'
import type { Snapshots } from './snapshots.ts'

export interface ServiceWatchOptions {
  readonly sql: Sql
  readonly snapshots: Pick<Snapshots, 'current' | 'refresh' | 'staleSinceMs'>
  /** Of changes of services. */
  readonly feed: ChangeFeed
  /** A watch ends, without an error, after this long, less up to a tenth, so that no connection is cut under it. */
  readonly maxAgeMs: number
  /** Watches of this process at once; default 1 000. */
  readonly watchersMax?: number
  /** Unix milliseconds; default Date.now. */
  readonly now?: () => number
}

type WatchEvent = Exclude<MessageInitShape<typeof WatchResponseSchema>, WatchResponse>

/** Implementation of marketplace.v1.Registry/Watch. */
export type ServiceWatch = (request: WatchRequest, call: Call) => AsyncIterable<WatchEvent>

const defaultBookmarkMs = 30_000
const pageSize = 500

export function createServiceWatch(options: ServiceWatchOptions): ServiceWatch {
  const { sql, snapshots, feed, maxAgeMs, watchersMax = 1_000, now = Date.now } = options
  let watchers = 0
  /** Each change is read for all watchers once. */
  const events = new WeakMap<LoggedChange, Delta>()

  async function* watch(request: WatchRequest, { signal }: Call): AsyncGenerator<WatchEvent> {
    const wanted = new Set(request.services)
    const isWanted = ({ id, name }: Named): boolean => wanted.size === 0 || wanted.has(id) || wanted.has(name)
    const bookmarkMs = request.bookmarkInterval === undefined ? defaultBookmarkMs : durationMs(request.bookmarkInterval)
    const endsAtMs = now() + maxAgeMs * (1 - Math.random() / 10)
    let cursor = Number(request.resourceVersion)
    let bookmarkAtMs = now() + bookmarkMs
    if (cursor === 0) {
      await snapshots.refresh()
      const { version, servicesById } = snapshots.current()
      for (const service of servicesById.values()) {
        if (isWanted(service)) yield { kind: Kind.ADDED, service: serviceMessage(service, now()) }
      }
      cursor = version
      yield { ...bookmark(cursor), snapshotComplete: true }
    } else {
      await mustKnow(cursor)
    }

    for (let page = await logged(cursor); page !== undefined; page = await logged(cursor)) {
      for (const change of page.changes) {
        const event = deltaOf(change)
        if (isWanted(event.service)) yield event
      }
      cursor = page.position
    }

    for (;;) {
      const changes = feed.after(cursor)
      if (changes === undefined) throw tooSlow(cursor)
      const upTo = Math.max(cursor, feed.position())
      for (const change of changes) {
        const event = deltaOf(change)
        if (!isWanted(event.service)) continue
        yield event
        bookmarkAtMs = now() + bookmarkMs
      }
      cursor = upTo
      const isOver = now() >= endsAtMs
      if (isOver || now() >= bookmarkAtMs) {
        yield bookmark(cursor)
        bookmarkAtMs = now() + bookmarkMs
      }
      if (isOver) return
      await feed.beyond(cursor, Math.min(bookmarkAtMs, endsAtMs) - now(), signal)
    }
  }

  /** A version that this replica did not see yet may come from another one, or from another database. */
  async function mustKnow(version: number): Promise<void> {
    if (version <= snapshots.current().version) return
    await snapshots.refresh()
    const known = snapshots.current().version
    if (version <= known) return
    if (snapshots.staleSinceMs() !== undefined) {
      const message = 'The registry cannot be read at the moment, and this replica does not know resource_version yet.'
      throw new TollgateError('STORAGE_UNAVAILABLE', message, { metadata: { resourceVersion: String(version) } })
    }
    throw new TollgateError(
      'RESOURCE_VERSION_UNKNOWN',
      `resource_version ${version} is beyond ${known}, the latest one`,
      {
        metadata: { resourceVersion: String(version), latestVersion: String(known) },
      },
    )
  }

  /** What is after the cursor in the log; undefined when the feed has all of it. */
  async function logged(cursor: number): Promise<LogPage | undefined> {
    if (feed.after(cursor) !== undefined) return undefined
    const page = await storing(() => selectChanges(sql, { after: cursor, kind: 'service', limit: pageSize }))
    if (page.horizon > cursor) throw tooOld(cursor, page.horizon)
    return page
  }

  function deltaOf(change: LoggedChange): Delta {
    const delta = events.get(change) ?? newDelta(change)
    events.set(change, delta)
    return delta
  }

  return async function* counted(request, call) {
    if (watchers >= watchersMax) {
      throw new TollgateError('WATCHERS_EXHAUSTED', `${watchersMax} watches are open here, which is the ceiling`, {
        metadata: { ceiling: String(watchersMax) },
        retryAfterMs: 1_000,
      })
    }
    watchers += 1
    try {
      for await (const event of watch(request, call)) {
        const { service } = event
        yield service === undefined ? event : { ...event, service: shownMessage(service, call.principal) }
      }
    } finally {
      watchers -= 1
    }
  }
}

type Delta = WatchEvent & { readonly service: Service }

interface Named {
  readonly id: string
  readonly name: string
}

function bookmark(position: number): WatchEvent {
  return { kind: Kind.BOOKMARK, resourceVersion: BigInt(position) }
}

function newDelta({ position, type, createdAtMs, resource }: LoggedChange): Delta {
  return {
    kind: type === 'service.registered' ? Kind.ADDED : Kind.MODIFIED,
    resourceVersion: BigInt(position),
    // A later release may have written it.
    service: fromJson(ServiceSchema, resource, { ignoreUnknownFields: true }),
    change: type,
    changeTime: timestampFromMs(createdAtMs),
  }
}

function tooOld(version: number, horizon: number): TollgateError {
  const text = `changes since resource_version ${version} are not kept any more: begin with a snapshot`
  return new TollgateError('RESOURCE_VERSION_TOO_OLD', text, {
    metadata: { resourceVersion: String(version), oldestVersion: String(horizon) },
  })
}

function tooSlow(version: number): TollgateError {
  const text = `the events were not read as fast as they came: go on from resource_version ${version}`
  return new TollgateError('WATCH_TOO_SLOW', text, {
    metadata: { resourceVersion: String(version) },
    retryAfterMs: 100,
  })
}
