/**
 * RPCs that roles may call whose reach is not everything, although their requests name no consumer and no organization in a
 * field that the contract declares. Each says why nobody sees or changes what is out of reach. Whoever adds an RPC that
 * belongs here confines it with src/identity/confine.ts, and tests that beside the handler.
 */
export const confinedByHandler: Readonly<Record<string, string>> = {
  'ConsumerService.ListOrganizations': 'lists the own organization: consumers.server.test.ts',
  'ProjectService.GetProject': 'reachable(): consumers.server.test.ts',
  'UserService.GetUser': 'reachable(): users.server.test.ts',
  'Registry.GetService': 'the catalog is for everybody who may call',
  'Registry.ListServices': 'the catalog is for everybody who may call',
  'Registry.ListPrices': 'the catalog is for everybody who may call',
  'Registry.Watch': 'the catalog is for everybody who may call',
  'PolicyEngine.ValidateService': 'is about a service of the catalog, and about nobody',
  'Registry.RegisterService': 'checkReach(): change-service.server.test.ts',
  'Registry.UpdateService': 'checkReach(): change-service.server.test.ts',
  'Registry.DeprecateService': 'checkReach(): change-service.server.test.ts',
  'Registry.RetireService': 'checkReach(): change-service.server.test.ts',
  'Registry.CreatePrice': 'checkReach(): change-service.server.test.ts',
  'Registry.SetTrafficSplit': 'checkReach(): change-service.server.test.ts',
  'Registry.ListEndpointStates': 'mayChange(): endpoint-state-handlers.test.ts',
  'Registry.SetServiceDocument': 'changeService(), as UpdateService',
  'Registry.GetServiceDocument': 'the catalog is for everybody who may call',
  'Registry.GetTrafficSplit': 'the catalog is for everybody who may call',
  'RegistryApi.AddRegistration': 'Registry.RegisterService',
  'RegistryApi.GetRegistration': 'the catalog is for everybody who may call',
  'RegistryApi.ListRegistrations': 'the catalog is for everybody who may call',
  'RegistryApi.ReplaceRegistration': 'Registry.UpdateService and what follows it',
  'RegistryApi.RemoveRegistration': 'Registry.RetireService',
}

/** Fields of requests that look like the id of a consumer or an organization and need no declaration, and why. */
export const undeclaredIds: Readonly<Record<string, string>> = {
  'Registry.RegisterService/service.owner.organization_id': 'checkReach(): change-service.server.test.ts',
  'Registry.ListServices/organization_id': 'a filter of the catalog, which is for everybody who may call',
  'Registry.UpdateService/service.owner.organization_id': 'checkReach(): change-service.server.test.ts',
}
