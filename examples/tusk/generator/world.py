"""Where Tusk is played and on which phones: fixed facts that players are drawn from.

Only places that keep one UTC offset all year are here, so that a player's local time needs no
time zone database and the generator gives the same bytes on every machine.
"""

from typing import NamedTuple


class Place(NamedTuple):
    """A city with what Snowplow's geo enrichment says of it; `share` is relative."""

    share: float
    country: str
    region: str
    region_name: str
    city: str
    latitude: float
    longitude: float
    time_zone: str
    utc_offset_hours: float


class Phone(NamedTuple):
    """A model of phone with what the tracker's mobile context says of it; `share` is relative."""

    share: float
    os_type: str
    os_version: str
    manufacturer: str
    model: str
    user_agent: str


PLACES = (
    Place(16, "KH", "12", "Phnom Penh", "Phnom Penh", 11.5583, 104.9121, "Asia/Phnom_Penh", 7),
    Place(6, "KH", "24", "Siem Reap", "Siem Reap", 13.3618, 103.8606, "Asia/Phnom_Penh", 7),
    Place(12, "VN", "SG", "Ho Chi Minh", "Ho Chi Minh City", 10.8231, 106.6297, "Asia/Ho_Chi_Minh", 7),
    Place(6, "VN", "HN", "Hanoi", "Hanoi", 21.0278, 105.8342, "Asia/Ho_Chi_Minh", 7),
    Place(9, "TH", "10", "Bangkok", "Bangkok", 13.7563, 100.5018, "Asia/Bangkok", 7),
    Place(10, "ID", "JK", "Jakarta", "Jakarta", -6.2088, 106.8456, "Asia/Jakarta", 7),
    Place(8, "PH", "00", "Metro Manila", "Manila", 14.5995, 120.9842, "Asia/Manila", 8),
    Place(7, "IN", "MH", "Maharashtra", "Mumbai", 19.076, 72.8777, "Asia/Kolkata", 5.5),
    Place(5, "IN", "KA", "Karnataka", "Bengaluru", 12.9716, 77.5946, "Asia/Kolkata", 5.5),
    Place(4, "JP", "13", "Tokyo", "Tokyo", 35.6762, 139.6503, "Asia/Tokyo", 9),
    Place(3, "AE", "DU", "Dubai", "Dubai", 25.2048, 55.2708, "Asia/Dubai", 4),
    Place(3, "TR", "34", "Istanbul", "Istanbul", 41.0082, 28.9784, "Europe/Istanbul", 3),
    Place(4, "NG", "LA", "Lagos", "Lagos", 6.5244, 3.3792, "Africa/Lagos", 1),
    Place(6, "BR", "SP", "Sao Paulo", "São Paulo", -23.5505, -46.6333, "America/Sao_Paulo", -3),
    Place(2, "CO", "DC", "Bogota D.C.", "Bogotá", 4.711, -74.0721, "America/Bogota", -5),
)

PHONES = (
    Phone(16, "android", "13", "samsung", "SM-A145F", "snowplow/andr-1.7.1 android/13"),
    Phone(9, "android", "12", "samsung", "SM-A037F", "snowplow/andr-1.7.1 android/12"),
    Phone(3, "android", "11", "samsung", "SM-T735", "snowplow/andr-1.7.1 android/11"),
    Phone(14, "android", "13", "Xiaomi", "Redmi Note 12", "snowplow/andr-1.7.1 android/13"),
    Phone(11, "android", "12", "OPPO", "CPH2477", "snowplow/andr-1.7.1 android/12"),
    Phone(9, "android", "12", "vivo", "V2207", "snowplow/andr-1.7.1 android/12"),
    Phone(6, "android", "13", "realme", "RMX3710", "snowplow/andr-1.7.1 android/13"),
    Phone(14, "ios", "16.4", "Apple", "iPhone12,1", "snowplow/ios-1.7.1 ios/16.4"),
    Phone(10, "ios", "16.4", "Apple", "iPhone14,5", "snowplow/ios-1.7.1 ios/16.4"),
    Phone(4, "ios", "15.7", "Apple", "iPhone9,3", "snowplow/ios-1.7.1 ios/15.7"),
    Phone(4, "ios", "16.4", "Apple", "iPad13,1", "snowplow/ios-1.7.1 ios/16.4"),
)
