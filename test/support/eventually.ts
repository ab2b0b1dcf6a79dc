import { setTimeout as delay } from 'node:timers/promises'

export interface EventuallyOptions {
  /** Default 30 s. */
  readonly timeoutMs?: number
  /** Throw the first error of the probe instead of trying on. */
  readonly giveUpOnError?: boolean
  /** What was waited for, for the failure's message. */
  readonly what?: () => string
}

/** Polls until the probe returns something other than undefined or false, and returns it. Throws when time is up. */
export async function eventually<T>(
  probe: () => T | Promise<T>,
  { timeoutMs = 30_000, giveUpOnError = false, what = () => 'a condition' }: EventuallyOptions = {},
): Promise<Exclude<T, undefined | false>> {
  const until = Date.now() + timeoutMs
  let failure: unknown
  do {
    try {
      const value = await probe()
      if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>
    } catch (error) {
      if (giveUpOnError) throw error
      failure = error
    }
    await delay(25)
  } while (Date.now() < until)
  throw new Error(`gave up after ${timeoutMs} ms waiting for ${what()}`, { cause: failure })
}
