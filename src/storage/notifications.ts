import type pg from 'pg'

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
}

export interface Subscription {
  close(): Promise<void>
}

/** Listens on a connection of its own, and on a new one whenever that is lost, until it is closed. */
export function listenTo({ connect, channel, onNotify, onDeaf, retryMs = 1_000 }: ListenOptions): Subscription {
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
      await mine.query(`listen ${mine.escapeIdentifier(channel)}`)
      isFailing = false
      onNotify()
    } catch (error) {
      restart(mine, error)
    }
  }

  function restart(lost: pg.Client, reason: unknown): void {
    if (isClosed || client !== lost) return
    client = undefined
    lost.end().catch(() => {})
    if (!isFailing) onDeaf(reason)
    isFailing = true
    timer = setTimeout(() => void start(), retryMs)
  }

  void start()
  return {
    async close() {
      isClosed = true
      clearTimeout(timer)
      await client?.end().catch(() => {})
    },
  }
}
