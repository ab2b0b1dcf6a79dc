import type { Call, EndListener } from '../call.ts'
import type { TollgateError } from '../errors.ts'
import type { Place } from '../passing-line.ts'

/** What ends a call at its backend: a caller's call itself, or the {@link Drain} of one. */
export type Ending = Pick<Call, 'ended' | 'onEnd' | 'offEnd'>

/**
 * The ending of a call whose service has the policy `drain`: a caller that went away does not end it. It goes on until the
 * service's limit or the call's deadline, whichever comes first, so that its usage becomes known. Deadlines and the end of
 * the drain window end it in any case.
 */
export class Drain implements Ending {
  ended: TollgateError | undefined
  /** Among those that are under way; whoever keeps them sets it. */
  place: Place<Drain> | undefined
  readonly #call: Ending & Pick<Call, 'deadlineMs'>
  readonly #limitMs: number | undefined
  readonly #now: () => number
  #listener: EndListener | undefined
  #timer: NodeJS.Timeout | undefined

  /**
   * @param limitMs of the service; undefined for none.
   * @param now Unix milliseconds.
   */
  constructor(call: Ending & Pick<Call, 'deadlineMs'>, limitMs: number | undefined, now: () => number) {
    this.#call = call
    this.#limitMs = limitMs
    this.#now = now
    call.onEnd(this.#onCallEnd)
  }

  /** One listens at a time: the attempt that is under way. */
  onEnd(listener: EndListener): void {
    if (this.ended === undefined) this.#listener = listener
    else listener(this.ended)
  }

  offEnd(listener: EndListener): void {
    if (this.#listener === listener) this.#listener = undefined
  }

  /** Ends the call; the first reason wins. */
  end(reason: TollgateError): void {
    if (this.ended !== undefined) return
    this.ended = reason
    this.release()
    this.#listener?.(reason)
  }

  /** To be called when the call is over. */
  release(): void {
    clearTimeout(this.#timer)
    this.#call.offEnd(this.#onCallEnd)
  }

  readonly #onCallEnd = (reason: TollgateError): void => {
    if (reason.reason !== 'CANCELLED') {
      this.end(reason)
      return
    }
    const leftMs = this.#call.deadlineMs - this.#now()
    this.#timer = setTimeout(() => this.end(reason), Math.max(0, Math.min(this.#limitMs ?? leftMs, leftMs)))
  }
}
