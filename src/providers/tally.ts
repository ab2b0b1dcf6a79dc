import type { TokenParts } from '../metering/usage-event.ts'
import { type CountedUsage, estimateDelivered, estimatedUsage, partialUsage } from './counts.ts'
import type { ReadRequest, StreamReport } from './provider.ts'

/** What a stream has told and delivered so far. Usage is cumulative in every protocol: a later report replaces it. */
export class Tally {
  model = ''
  finishReason = ''
  usage: TokenParts | undefined
  readonly text = { bytes: 0, deltas: 0 }
  readonly reasoning = { bytes: 0, deltas: 0 }

  /** Counts a delta of text, or of a tool call; an empty one is none. */
  addText(text: string): void {
    add(this.text, text)
  }

  addReasoning(text: string): void {
    add(this.reasoning, text)
  }

  report(request: ReadRequest, isComplete: boolean): StreamReport {
    return {
      ...this.#usage(request, isComplete),
      model: this.model,
      finishReason: this.finishReason,
      textBytes: this.text.bytes,
      reasoningBytes: this.reasoning.bytes,
    }
  }

  #usage(request: ReadRequest, isComplete: boolean): CountedUsage {
    const model = this.model || request.model
    if (!isComplete) return partialUsage(this.usage, this.text, this.reasoning, request.payloadBytes, model)
    if (this.usage !== undefined) return { tokens: this.usage, usageSource: 'provider' }
    return {
      tokens: {
        ...estimatedUsage(request.payloadBytes, 0, model),
        output: estimateDelivered(this.text, model),
        reasoningOutput: estimateDelivered(this.reasoning, model),
      },
      usageSource: 'estimated',
    }
  }
}

function add(delivered: { bytes: number; deltas: number }, text: string): void {
  if (text === '') return
  delivered.bytes += Buffer.byteLength(text)
  delivered.deltas += 1
}
