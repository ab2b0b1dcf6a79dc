import type pg from 'pg'
import { within } from '../within.ts'

export interface ListenOptions {
  /** Makes a client that is not connected. */
  readonly connect: () => pg.Client
  readonly channel: string
  /** Called for each notification, and whenever some may have been missed. */
  readonly onNotify: () => void
  /** Told when it stops hearing anything, until it hears again. */
  readonly onDeaf: (reason: unknown) => void
  /** Between two tries to connect; default 1 000. */
  readonly retryMs?: number
  /**
   * How often the server is asked whether it is still there; default 30 000. Without asking, a connection that only hears
   * does not learn that the other side is gone.
   */
  readonly checkEveryMs?: number | undefined
}

export interface Subscription {
  /** Stops listening, within a second also when the server does not answer. Safe to call again. */
  close(): Promise<void>
}

/** An answer to the shortest of statements that takes longer does not come. */
const answerTimeoutMs = 5_000
const closeTimeoutMs = 1_000

/**
 * Listens on a connection of its own, and on a new one whenever that is lost or its server does not answer, until it is
 * closed.
 */
export function listenTo(options: ListenOptions): Subscription {
  const { connect, channel, onNotify, onDeaf, retryMs = 1_000, checkEveryMs = 30_000 } = options
  let client: pg.Client | undefined
  let timer: NodeJS.Timeout | undefined
  let isClosed = false
  let isFailing = false

  async function start(): Promise<void> {
    const mine = connect()
    client = mine
    mine.on('notification', onNotify)
    mine.on('error', (error) => restart(mine, error))
    mine.on('end', () => restart(mine, 'the connection ended'))
    try {
      await mine.connect()
      await within(answerTimeoutMs, mine.query(`listen ${mine.escapeIdentifier(channel)}`))
      isFailing = false
      onNotify()
      checkLater(mine)
    } catch (error) {
      restart(mine, error)
    }
  }

  function checkLater(mine: pg.Client): void {
    if (isClosed || client !== mine) return
    timer = setTimeout(() => {
      within(answerTimeoutMs, mine.query('select 1')).then(
        () => checkLater(mine),
        (error: unknown) => restart(mine, error),
      )
    }, checkEveryMs)
  }

  function restart(lost: pg.Client, reason: unknown): void {
    if (isClosed || client !== lost) return
    client = undefined
    clearTimeout(timer)
    lost.connection.stream.destroy()
    if (!isFailing) onDeaf(reason)
    isFailing = true
    timer = setTimeout(() => void start(), retryMs)
  }

  void start()
  return {
    async close() {
      isClosed = true
      clearTimeout(timer)
      if (client === undefined) return
      // A farewell only: the socket is closed either way.
      await within(closeTimeoutMs, client.end()).catch(() => {})
      client.connection.stream.destroy()
    },
  }
}
