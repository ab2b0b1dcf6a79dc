/** The kinds of rules: functions of what is known of a call. What each demands stands in proto/marketplace/v1/policy.proto. */

import { classifications } from '../registry/classification.ts'
import type { Condition } from './cel/compile.ts'
import type { Network } from './cel/networks.ts'
import type { Scanner } from './content/content.ts'
import { levelOf } from './levels.ts'
import type { Breach, Subject } from './subject.ts'

type Judge = (subject: Subject) => Breach | undefined

export function judgeAccess(allowIf: Condition | undefined, networks: readonly Network[]): Judge {
  return (subject) => {
    const { address, consumer, service } = subject.facts
    if (networks.length > 0 && !networks.some((contains) => contains(address))) {
      return denial(`Address ${address === '' ? '(unknown)' : address} is in none of the allowed networks.`)
    }
    if (allowIf === undefined ? networks.length > 0 : subject.holds(allowIf)) return undefined
    const what = `${service.name} ${service.version}`
    // A policy for services knows no consumer.
    if (consumer.id === '') return denial(`Service ${what} is not as it must be.`)
    return denial(`Consumer ${consumer.id} may not use service ${what} in this way.`)
  }
}

/** @param defaultLevel rank of requests that state none; undefined: what the consumer is cleared for. */
export function judgeClassification(metadataKey: string, defaultLevel: number | undefined): Judge {
  return ({ facts: { consumer, service, request } }) => {
    const cleared = levelOf(consumer.clearance) ?? 0
    const receives = levelOf(service.classification) ?? 0
    const stated = Object.hasOwn(request.metadata, metadataKey) ? request.metadata[metadataKey] : undefined
    const level = stated === undefined ? (defaultLevel ?? cleared) : levelOf(stated)
    if (level === undefined) {
      return denial(
        `Metadata "${metadataKey}" names no data classification: it must be one of ${classifications.join(', ')}.`,
      )
    }
    const data = `The request counts as ${classifications[level]} data`
    if (level > cleared)
      return denial(`${data}, and consumer ${consumer.id} is cleared for ${classifications[cleared]}.`)
    if (level <= receives) return undefined
    return denial(`${data}, and service ${service.name} may receive ${classifications[receives]}.`)
  }
}

export function judgeContent(action: Breach['action'], scan: Scanner): Judge {
  return (subject) => {
    const content = subject.content()
    if (content === undefined) return undefined
    const { names, replacements } = scan(content)
    if (names.length === 0) return undefined
    const message = `The request contains ${names.join(', ')}.`
    if (action === 'redact' && !content.texts.isWritable) {
      return { ...denial(`${message} It is no UTF-8 text, so that nothing can be taken out of it.`), marks: names }
    }
    return { action, message, marks: names, replacements }
  }
}

export function judgeResidency(allowed: ReadonlySet<string>, homeOnly: boolean): Judge {
  return ({ facts: { consumer, service } }) => {
    const where =
      service.regions.length === 0 ? 'in regions that it does not state' : `in ${service.regions.join(', ')}`
    if (allowed.size > 0 && !within(service.regions, (region) => allowed.has(region))) {
      return denial(`Service ${service.name} works ${where}; allowed: ${[...allowed].join(', ')}.`)
    }
    if (homeOnly && !within(service.regions, (region) => region === consumer.homeRegion)) {
      const home = consumer.homeRegion === '' ? 'has no home region' : `belongs to ${consumer.homeRegion}`
      return denial(`Consumer ${consumer.id} ${home}, and service ${service.name} works ${where}.`)
    }
    return undefined
  }
}

/** A service that states no region may be anywhere. */
function within(regions: readonly string[], isAllowed: (region: string) => boolean): boolean {
  return regions.length > 0 && regions.every(isAllowed)
}

export interface CostCeilings {
  /** 0 here and below: none. */
  readonly costNanos: number
  readonly currency: string
  readonly inputTokens: number
  readonly outputTokens: number
}

export function judgeCost(ceilings: CostCeilings): Judge {
  return ({ facts: { request } }) => {
    const { inputTokens, maxOutputTokens, costNanos, currency } = request
    if (ceilings.inputTokens > 0 && inputTokens > ceilings.inputTokens) {
      return denial(`The request has about ${inputTokens} input tokens; allowed: ${ceilings.inputTokens}.`)
    }
    if (ceilings.outputTokens > 0 && maxOutputTokens > ceilings.outputTokens) {
      return denial(`The request allows ${maxOutputTokens} output tokens; allowed: ${ceilings.outputTokens}.`)
    }
    if (ceilings.costNanos === 0) return undefined
    if (currency !== ceilings.currency) return denial(`The call has no price in ${ceilings.currency}.`)
    if (costNanos <= ceilings.costNanos) return undefined
    return denial(`The call may cost ${costNanos} nano-${currency}; allowed: ${ceilings.costNanos}.`)
  }
}

function denial(message: string): Breach {
  return { action: 'deny', message, marks: [], replacements: [] }
}
