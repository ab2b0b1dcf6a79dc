/**
 * marketplace.v1.MarketplaceApi: the HTTP API of reference 001 as a layer of words. Every call goes on to the service that
 * does the work; what is here turns the reference's JSON into its messages, and back.
 */
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import {
  CheckQuotaRequestSchema,
  type ConsumptionService,
  type QuotaStatus,
  QuotaStatusSchema,
  RouteRequestRequestSchema,
  RouteRequestResponseSchema,
} from '../../gen/marketplace/v1/consumption_pb.ts'
import {
  ApiKeySchema,
  CreateKeyRequestSchema,
  CreateKeyResponseSchema,
  type KeyService,
  ListKeysRequestSchema,
  ListKeysResponseSchema,
  RevokeKeyRequestSchema,
} from '../../gen/marketplace/v1/keys_pb.ts'
import type {
  MarketplaceApi,
  TokenQuotaSchema,
  UsageSummarySchema,
} from '../../gen/marketplace/v1/marketplace_api_pb.ts'
import {
  PolicyDecisionSchema,
  type PolicyEngine,
  PolicyOutcome,
  PolicyOutcomeSchema,
  ValidateConsumptionRequestSchema,
} from '../../gen/marketplace/v1/policy_pb.ts'
import {
  GetUsageStatsRequestSchema,
  type UsageService,
  type UsageStats,
  UsageStatsSchema,
} from '../../gen/marketplace/v1/usage_pb.ts'
import type { Handlers } from '../call.ts'
import type { Reason } from '../errors.ts'
import { compileFieldRules } from '../field-rules.ts'
import { toJsonBytes } from '../providers/json.ts'
import { consumptionAnswer, consumptionOf } from './consume.ts'
import { keyRequest, newKeyMessage, serviceKeyMessage } from './service-key.ts'

/** The services that do the work. */
export interface MarketplaceApiOptions {
  readonly consumption: Handlers<typeof ConsumptionService.method>
  readonly usage: Handlers<typeof UsageService.method>
  readonly keys: Handlers<typeof KeyService.method>
  readonly policy: Handlers<typeof PolicyEngine.method>
}

/** Statuses of reference 001: a key that is wrong is forbidden there. Without any key it says nothing: 401. */
export const marketplaceStatuses: Partial<Record<Reason, number>> = {
  CREDENTIAL_INVALID: 403,
  CREDENTIAL_EXPIRED: 403,
  CREDENTIAL_REVOKED: 403,
}

export function createMarketplaceApi(options: MarketplaceApiOptions): Handlers<typeof MarketplaceApi.method> {
  const rules = compileFieldRules([
    RouteRequestRequestSchema,
    CheckQuotaRequestSchema,
    GetUsageStatsRequestSchema,
    CreateKeyRequestSchema,
    ListKeysRequestSchema,
    RevokeKeyRequestSchema,
    ValidateConsumptionRequestSchema,
  ])
  const routeRequest = implemented(options.consumption.routeRequest)
  const checkQuota = implemented(options.consumption.checkQuota)
  const getUsageStats = implemented(options.usage.getUsageStats)
  const createKey = implemented(options.keys.createKey)
  const listKeys = implemented(options.keys.listKeys)
  const revokeKey = implemented(options.keys.revokeKey)
  const validateConsumption = implemented(options.policy.validateConsumption)
  return {
    async consume({ serviceId, consumerId, payload }, call) {
      const asked = create(RouteRequestRequestSchema, { serviceId, consumerId, ...consumptionOf(payload) })
      rules.check(RouteRequestRequestSchema, asked)
      const answer = create(RouteRequestResponseSchema, await routeRequest(asked, call))
      return { contentType: 'application/json', data: consumptionAnswer(answer) }
    },

    async readTokenQuota({ serviceId, consumerId }, call) {
      const asked = create(CheckQuotaRequestSchema, { serviceId, consumerId })
      rules.check(CheckQuotaRequestSchema, asked)
      return quotaMessage(create(QuotaStatusSchema, await checkQuota(asked, call)))
    },

    async readUsage({ serviceId, consumerId, days }, call) {
      const asked = create(GetUsageStatsRequestSchema, { serviceId, consumerId, days })
      rules.check(GetUsageStatsRequestSchema, asked)
      return summaryMessage(create(UsageStatsSchema, await getUsageStats(asked, call)))
    },

    async createServiceKey(request, call) {
      const asked = keyRequest(request)
      rules.check(CreateKeyRequestSchema, asked)
      const { apiKey, key } = create(CreateKeyResponseSchema, await createKey(asked, call))
      return newKeyMessage(apiKey ?? create(ApiKeySchema), key)
    },

    async listServiceKeys({ consumerId, pageSize, pageToken }, call) {
      const asked = create(ListKeysRequestSchema, { consumerId, pageSize, pageToken })
      rules.check(ListKeysRequestSchema, asked)
      const { apiKeys, nextPageToken } = create(ListKeysResponseSchema, await listKeys(asked, call))
      return { keys: apiKeys.map(serviceKeyMessage), nextPageToken }
    },

    async revokeServiceKey({ consumerId, keyId }, call) {
      const asked = create(RevokeKeyRequestSchema, { consumerId, keyId })
      rules.check(RevokeKeyRequestSchema, asked)
      return serviceKeyMessage(create(ApiKeySchema, await revokeKey(asked, call)))
    },

    async validateRequest({ serviceId, consumerId, request, ipAddress, userAgent }, call) {
      const payload = request === undefined ? new Uint8Array() : toJsonBytes(request)
      const parties = { serviceId, consumerId, ipAddress, userAgent }
      const asked = create(ValidateConsumptionRequestSchema, { ...parties, payload })
      rules.check(ValidateConsumptionRequestSchema, asked)
      const decision = await validateConsumption(asked, call)
      const { allowed, reason, violations } = create(PolicyDecisionSchema, decision)
      return {
        allowed,
        reason,
        violations: violations.map(({ policyId, severity, message, outcome }) => {
          return { policyId, severity, message, outcome: outcomeName(outcome) }
        }),
      }
    },
  }
}

function quotaMessage(quota: QuotaStatus): MessageInitShape<typeof TokenQuotaSchema> {
  return {
    serviceId: quota.serviceId,
    consumerId: quota.consumerId,
    tier: quota.tier,
    usedTokens: Number(quota.used),
    totalTokens: Number(quota.limit),
    remainingTokens: Number(quota.remaining),
    resetAt: timestampFromMs(Number(quota.resetAt) * 1000),
    exceeded: quota.exceeded,
  }
}

function summaryMessage(stats: UsageStats): MessageInitShape<typeof UsageSummarySchema> {
  const { serviceId, consumerId, periodStart, periodEnd, totalCost, avgLatencyMs, errorRate } = stats
  return {
    serviceId,
    consumerId,
    ...(periodStart !== undefined && { periodStart }),
    ...(periodEnd !== undefined && { periodEnd }),
    totalRequests: Number(stats.totalRequests),
    totalTokens: Number(stats.totalTokens),
    ...(totalCost !== undefined && { totalCost }),
    avgLatencyMs,
    errorRate,
  }
}

/** As people write it: "denied" is POLICY_OUTCOME_DENIED. */
function outcomeName(outcome: PolicyOutcome): string {
  return outcome === PolicyOutcome.UNSPECIFIED
    ? ''
    : (PolicyOutcomeSchema.value[outcome]?.localName.toLowerCase() ?? '')
}

function implemented<H>(handler: H | undefined): H {
  if (handler === undefined) throw new Error('the HTTP API stands on an RPC that has no implementation')
  return handler
}
